#!/bin/sh
# Makes a Python for 64-bit Arm that runs here, emulated, with what a device needs for models.
#
#     tests/arm64.sh DIR && EDGEPRUNE_ARM64=DIR/python3 pytest tests/test_arm64.py
#
# Nothing is installed: Debian's packages come by apt from the host's own mirror, are verified with
# Debian's keys, and are unpacked beside; wheels come by pip. qemu's user mode emulates the processor;
# EDGEPRUNE_ARM64_CPU says which: cortex-a76 has dot products of int8, cortex-a72 has none.
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
    grep -v security | head -n 1)
mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/debs" "$dir/site"
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [arch=amd64,arm64 signed-by=$key] $mirror bookworm main" >"$dir/sources.list"
: >"$dir/status"
private() {
    command=$1
    shift
    "$command" -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$dir/lists" -o Dir::State::status="$dir/status" \
        -o Dir::Cache="$dir/cache" -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 \
        -o APT::Sandbox::User=root "$@"
}
private apt-get update
packages=$(private apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances python3.11:arm64 libstdc++6:arm64 |
    grep '^[a-z].*:arm64$' | sort -u)
# shellcheck disable=SC2086
(cd "$dir/debs" && private apt-get download qemu-user-static:amd64 $packages)
for deb in "$dir"/debs/*_arm64.deb; do dpkg -x "$deb" "$dir/root"; done
dpkg -x "$dir"/debs/qemu-user-static_*_amd64.deb "$dir/qemu"
rm -r "$dir/lists" "$dir/cache" "$dir/debs"

python3 -m pip download -q -d "$dir/wheels" --only-binary :all: --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    -c "$(dirname "$0")/../constraints.txt" numpy onnxruntime
for wheel in "$dir"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$dir/site"; done
rm -r "$dir/wheels"

# ONNX Runtime reads these, and crashes on those of an x86 machine; qemu looks into the root first.
mkdir -p "$dir/root/proc" "$dir/root/sys/devices/system/cpu"
printf 'processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n' >"$dir/root/proc/cpuinfo"
for name in possible present; do echo 0 >"$dir/root/sys/devices/system/cpu/$name"; done

cat >"$dir/python3" <<END
#!/bin/sh
export PYTHONPATH="$dir/site"
exec "$dir/qemu/usr/bin/qemu-aarch64-static" -cpu "\${EDGEPRUNE_ARM64_CPU:-cortex-a76}" \
    -L "$dir/root" "$dir/root/usr/bin/python3.11" "\$@"
END
chmod +x "$dir/python3"
