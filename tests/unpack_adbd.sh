#!/bin/sh
# Unpacks adbd of Debian 13 with its libraries, for a host whose release has none.
#
#     tests/unpack_adbd.sh DIR && EDGEPRUNE_ADBD=DIR/adbd pytest tests/test_adb.py
#
# Nothing is installed: the packages come by apt from the host's own mirror, are verified with
# Debian's keys, and run by their own loader. On Debian 13 and later, `apt install adbd` is all.
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
    grep -v security | head -n 1)
mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/debs"
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $mirror trixie main" >"$dir/sources.list"
private() {
    command=$1
    shift
    "$command" -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" \
        -o APT::Sandbox::User=root "$@"
}
private apt-get update
packages=$(private apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances adbd | grep '^[a-z]' | sort -u)
# shellcheck disable=SC2086
(cd "$dir/debs" && private apt-get download $packages)
for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/root"; done
rm -r "$dir/lists" "$dir/cache" "$dir/debs"

loader=$(find "$dir/root" -name 'ld-linux-*.so.*' | head -n 1)
libraries=$(find "$dir/root/usr/lib" -name 'lib*.so*' -exec dirname {} + | sort -u | paste -sd :)
cat >"$dir/adbd" <<END
#!/bin/sh
exec "$loader" --library-path "$libraries" "$dir/root/usr/sbin/adbd"
END
chmod +x "$dir/adbd"
