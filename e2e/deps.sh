#!/bin/sh
# Installs what a bare Debian machine lacks to build, test and run Tanka. Changes nothing, and takes no time, when all is there.
# Ends with 2 and one sentence where the machine itself does not fit.
set -eu

die() { echo "deps: $*" >&2; exit 2; }
cd "$(dirname "$0")/.."

# --- The machine --------------------------------------------------------------------------------------------------------------
[ "$(uname -s)" = Linux ] || die "this needs Linux: run it in a virtual machine"
[ "$(id -u)" -eq 0 ] || die "this needs root: run it with sudo"

cache=${TANKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tanka}
mkdir -p "$cache" || die "the cache folder $cache cannot be made: set TANKA_CACHE to one that can"
disk_wanted=15
# Most of it is what has been built by then.
[ ! -d "$cache/images" ] || disk_wanted=5
disk_gib=$(($(df --output=avail -k "$cache" | tail -n 1) / 1024 / 1024))
[ "$disk_gib" -ge "$disk_wanted" ] ||
  die "$cache has $disk_gib GiB free of $disk_wanted: free some, or set TANKA_CACHE to a folder on another disk"
memory_gib=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) / 1000 / 1000))
[ "$memory_gib" -ge 6 ] || die "the machine has $memory_gib GiB of memory of 6: use a larger one"

# --- Packages -----------------------------------------------------------------------------------------------------------------
packages='binutils buildah ca-certificates conntrack containerd containernetworking-plugins curl gcc git iproute2 iptables jq
  libc6-dev make mmdebstrap mold nftables procps runc util-linux wrk zstd'

missing() {
  # shellcheck disable=SC2086  # a list of words
  installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' $packages 2>/dev/null) || true
  for package in $packages; do
    case $package in
      # Docker's own packages bring these, and exclude Debian's.
      containerd | runc) ! command -v "$package" >/dev/null || continue ;;
    esac
    echo "$installed" | grep -qx "installed $package" || echo "$package"
  done
}

absent=$(missing)
if [ -n "$absent" ]; then
  command -v apt-get >/dev/null || die "this machine has no apt: install" $absent
  # Nothing that is installed here may start or be enabled: the tests start what they need, and the machine may run its own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt="apt-get -o DPkg::Lock::Timeout=60 -o Acquire::Retries=3 -qq"
  # shellcheck disable=SC2086  # lists of words
  $apt update && $apt install -y --no-install-recommends $absent >/dev/null ||
    die "apt could not install" $absent "(see above): check the mirrors of this machine"
  # Its package enables it for the next boot.
  case $absent in
    *containerd*) rm -f /etc/systemd/system/multi-user.target.wants/containerd.service ;;
  esac
fi

# --- Compilers, which a distribution's release does not have recent enough -------------------------------------------------------
# at_least WANTED FOUND: compares versions.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

go_wanted=1.26
go_found=$(go env GOVERSION 2>/dev/null | sed 's/^go//') || go_found=''
[ -n "$go_found" ] || die "Go is missing: install Go $go_wanted or newer, and put it into PATH"
at_least "$go_wanted" "$go_found" || die "Go $go_found is too old: install Go $go_wanted or newer"

rust_wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
command -v cargo >/dev/null || die "cargo is missing: install Rust $rust_wanted with rustup"
rust_found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) || rust_found=''
[ "$rust_found" = "$rust_wanted" ] || die "rustc is ${rust_found:-not usable}: run \`rustup toolchain install $rust_wanted\`"
