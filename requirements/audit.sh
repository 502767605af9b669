#!/bin/sh
# Known vulnerabilities in what the locks name, by pip-audit; exits 1 where there are some.
#
#     pip install -c constraints.txt '.[release]' && requirements/audit.sh     (make audit)
#
# A mirror without the database answers "no known vulnerabilities" to everything. So an old release
# with some is asked about first; where none are told of it, the rest would mean nothing.
set -eu
cd "$(dirname "$0")/.."
room=$(mktemp -d)
trap 'rm -r "$room"' EXIT

audit() {
    pip-audit --progress-spinner off --disable-pip --no-deps --requirement "$@"
}

echo "urllib3==1.24.1" >"$room/old.txt"
if ! audit "$room/old.txt" --format json 2>"$room/why" | grep -q '"id"'; then
    echo "SKIPPED: NOTHING WAS AUDITED, the database of vulnerabilities cannot be asked:" >&2
    tail -n 1 "$room/why" >&2
    exit 0
fi
for lock in requirements/*.lock; do
    # The database knows a release of PyTorch by its number, whatever it was built for.
    sed -e 's/+cpu//' -e '/--hash/d' -e 's/ *\\$//' "$lock" >"$room/$(basename "$lock").txt"
    audit "$room/$(basename "$lock").txt" --strict
done
