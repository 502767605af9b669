"""What is there already, measured, judged and compared."""
