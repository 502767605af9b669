#!/bin/sh
# Writes requirements/*.lock: every release that an install takes, with the hashes of its files.
#
#     pip install -c constraints.txt '.[release]' && requirements/lock.sh     (make lock)
#
# uv takes the releases of constraints.txt, so a lock and a constrained install are the same ones.
# PyTorch's CPU wheels are on an index of their own, which uv is told by UV_EXTRA_INDEX_URL or
# UV_FIND_LINKS.
set -eu
cd "$(dirname "$0")/.."

lock() {
    file=requirements/$1.lock
    about=$2 notes=$3
    shift 3
    {
        echo "# $about"
        echo "# $notes"
        echo "#"
        echo "#     pip install --require-hashes -r $file && pip install --no-deps ."
        echo "#"
        echo "# Written by requirements/lock.sh: uv pip compile pyproject.toml -c constraints.txt"
        echo "#     --generate-hashes $*"
        # Not the addresses that this machine's releases came from.
        uv pip compile pyproject.toml --quiet -c constraints.txt --generate-hashes --no-header \
            --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11 "$@"
    } >"$file.new"
    mv "$file.new" "$file"
}

lock base "What edgeprune needs to measure, check, verify and ship." \
    "For Python >= 3.11 on Linux." \
    --universal
# PyTorch's CPU wheels bear the hashes of one Python and one platform each, and are other files than
# the ones of the same number on the Python Package Index: those bring GPU libraries.
lock train "What edgeprune[train] needs, with PyTorch for CPUs, from PyTorch's own index." \
    "For CPython 3.11 on Linux, x86-64 with glibc >= 2.28: no other wheel of torch has its hash." \
    --extra train --python-platform x86_64-manylinux_2_28 --index-strategy unsafe-best-match
