"""The encoder that tests of training learn with: as small as one can be."""

from transformers import BertConfig

from edgeprune.shape import Shape

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=16,
)
DENSE = Shape.uniform(2, 2, 24, hidden=16, head_dim=8, vocab=40)
