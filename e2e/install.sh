#!/usr/bin/env bash
# install.sh: Debian packages that the end-to-end tests and the benchmark use;
# `install.sh peers` as well unpacks the IKE daemons of others, for make
# test-peers, and `install.sh kernels` the kernels of Debian's releases, for make
# kernels. It installs what is missing when it is root; otherwise it says what
# is missing, and the tests that need it are skipped.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive

# program, file, or python:module, and the package it is in
wanted='
make           make
gcc            gcc
/usr/include/stdio.h  libc6-dev
ip             iproute2
ping           iputils-ping
nft            nftables
iptables-nft   iptables
wg-quick       wireguard-tools
nginx          nginx-light
curl           curl
nmap           nmap
openssl        openssl
iperf3         iperf3
dnsmasq        dnsmasq-base
dhcpcd         dhcpcd-base
udhcpc         udhcpc
in.tftpd       tftpd-hpa
tftp           tftp-hpa
python:pyftpdlib  python3-pyftpdlib
tcpdump        tcpdump
tshark         tshark
python3        python3
python:scapy   python3-scapy
linux.uml      user-mode-linux
depmod         kmod
'
[ "${1:-}" != kernels ] || wanted+='
qemu-system-x86_64  qemu-system-x86
xz             xz-utils
zstd           zstd
'

# IKE daemons of others and kernels are unpacked, not installed: their packages
# would upgrade the machine's init and start services. Each daemon comes with every
# library that it needs, the C library too, and runs by its own loader. apt
# verifies all of it, with lists and a state of its own; the machine's are not
# touched.
unpacked=/var/cache/ipfw-e2e

# debian: where the machine's own apt has Debian's packages from. Every release
# is there.
debian() {
  local found
  found=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "main" && ($3 == "Debian" || $1 ~ /\/debian\/$/) && $1 !~ /security/ { print $1; exit }')
  if [ -z "$found" ]; then
    echo "install.sh: apt on this machine has no source of Debian's main packages; write one to /etc/apt/sources.list.d and run apt-get update (the IKE daemons of others and the kernels come from there)" >&2
    return 1
  fi
  echo "$found"
}

# apt_of SUITE ARGUMENT...: apt-get for one release of Debian.
apt_of() {
  local own=$unpacked/apt-$1 mirror
  if [ ! -d "$own" ]; then
    mirror=$(debian) || return 1
    mkdir -p "$own"/{lists,archives}/partial "$own/none"
    : >"$own/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$own/sources.list"
    if ! apt_of "$1" update -o APT::Update::Error-Mode=any; then
      rm -rf "$own"
      echo "install.sh: no packages of Debian's release $1 at $mirror, where this machine's apt has its own from; add a source of Debian that has all releases" >&2
      return 1
    fi
  fi
  shift
  apt-get -o Dir::State="$own" -o Dir::State::status="$own/status" -o Dir::Cache="$own" -o Dir::Etc::sourcelist="$own/sources.list" \
    -o Dir::Etc::sourceparts="$own/none" -o Dir::Etc::preferencesparts="$own/none" -o APT::Sandbox::User=root -o Acquire::Languages=none -qq "$@" </dev/null
}

# extract SUITE PATTERN PACKAGE...: those of the packages, and of all that they
# need, whose names fit, to root in a new folder: $tmp of whoever calls.
extract() {
  local suite=$1 pattern=$2 names
  shift 2
  apt_of "$suite" check # has its lists
  tmp=$(mktemp -d "$unpacked/new.XXXXXX")
  chmod 755 "$tmp"
  mkdir "$tmp/root"
  names=$(apt_of "$suite" install -s --no-install-recommends "$@" | awk '$1 == "Inst" { print $2 }' | grep -E "$pattern")
  # shellcheck disable=SC2086 # a list of packages
  (cd "$tmp" && apt_of "$suite" download $names >/dev/null && for d in *.deb; do dpkg -x "$d" root; done)
}

# unpack SUITE NAME PACKAGE...: to SUITE-NAME, with the libraries that they need.
unpack() {
  local suite=$1 to=$unpacked/$1-$2 tmp
  shift 2
  [ ! -d "$to" ] || return 0
  echo "install.sh: unpacking $* of $suite to $to"
  extract "$suite" "^(lib|zlib1g$|$(echo "$*" | tr ' ' '|'))" "$@"
  mv "$tmp/root" "$to"
  rm -rf "$tmp"
}

# kernel SUITE: the kernel of a release to SUITE-kernel, where e2e/vm looks for
#
#   vmlinuz, modules, busybox  links to what their names say
#   first/                     the modules that it needs to mount its root, for
#                              insmod in this order
kernel() {
  local suite=$1 to=$unpacked/$1-kernel tmp root modules version base file n=10
  [ ! -d "$to" ] || return 0
  echo "install.sh: unpacking the kernel of $suite to $to"
  extract "$suite" '^(linux-(image|base|binary|modules)-[0-9]|busybox-static$)' linux-image-amd64 busybox-static
  root=$tmp/root
  modules=$(cd "$root" && find . -path '*/lib/modules/*' -prune -print)
  version=${modules##*/} base=$root/${modules%/lib/modules/*}
  ln -s "$modules" "$root/modules"
  for file in vmlinuz busybox; do
    ln -s "$(cd "$root" && find . -path ./usr/share -prune -o -name "$file*" -type f -print)" "$root/$file"
  done
  depmod -b "$base" "$version"
  mkdir "$root/first"
  # Some are built in; some come compressed.
  for file in virtio_pci virtio_console 9pnet_virtio 9p overlay; do
    modprobe -d "$base" -S "$version" --show-depends "$file"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    n=$((n + 1))
    case $file in
      *.xz) xz -dc "$file" >"$root/first/$n-$(basename "$file" .xz)" ;;
      *.zst) zstd -qdc "$file" >"$root/first/$n-$(basename "$file" .zst)" ;;
      *) cp "$file" "$root/first/$n-$(basename "$file")" ;;
    esac
  done
  mv "$root" "$to"
  rm -rf "$tmp"
}

# programs SUITE: a root of its own, to SUITE-programs, with those that e2e starts
# beside ipfw in guests (lab.Programs), as the release has them, and all that they
# need. Installed they would take over this machine's firewall at its next start.
programs() {
  local suite=$1 to=$unpacked/$1-programs tmp root file
  [ ! -d "$to" ] || return 0
  echo "install.sh: unpacking firewalld, ufw, fail2ban and others of $suite to $to"
  extract "$suite" . firewalld ufw fail2ban dbus iptables nftables wireguard-tools iproute2 procps kmod \
    base-passwd bash coreutils dash grep gzip hostname sed util-linux
  root=$tmp/root
  # What their installation would have made: one /usr, and what links name.
  for file in bin sbin lib lib64; do
    if [ -d "$root/$file" ] && [ ! -L "$root/$file" ]; then
      mkdir -p "$root/usr/$file"
      cp -a "$root/$file/." "$root/usr/$file"
      rm -rf "${root:?}/$file"
    fi
    [ -e "$root/$file" ] || ln -s "usr/$file" "$root/$file"
  done
  ln -sf dash "$root/usr/bin/sh"
  for file in iptables ip6tables; do
    ln -sf xtables-nft-multi "$root/usr/sbin/$file"
    ln -sf xtables-nft-multi "$root/usr/sbin/$file-save"
    ln -sf xtables-nft-multi "$root/usr/sbin/$file-restore"
  done
  mkdir -p "$root"/{proc,sys,dev,run,tmp,root}
  cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
  cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
  echo 'messagebus:x:100:65534::/:/bin/false' >>"$root/etc/passwd"
  mv "$root" "$to"
  rm -rf "$tmp"
}

# own: what is unpacked is of one who unpacks; of two at a time one waits.
own() {
  mkdir -p "$unpacked"
  exec 9>"$unpacked/lock"
  flock 9
  rm -rf "$unpacked"/new.* # of one that was killed
}

# kernels: of each release that e2e/vm boots.
kernels() {
  own
  for release in bookworm trixie forky; do kernel $release; programs $release; done
  rm -rf "$unpacked"/apt-*
}

# The strongSwan of forky has ML-KEM; that of trixie, 6.0.1, is built without.
peers() {
  own
  # Where the daemons' files would be installed: tests mount the unpacked ones there.
  mkdir -p /usr/lib/ipsec /usr/libexec/ipsec
  local swan='strongswan-charon strongswan-libcharon strongswan-swanctl libstrongswan-extra-plugins libcharon-extra-plugins'
  # shellcheck disable=SC2086 # a list of packages
  unpack bookworm strongswan $swan libstrongswan-standard-plugins
  # shellcheck disable=SC2086
  unpack forky strongswan $swan
  unpack bookworm openiked openiked
  unpack bookworm libreswan libreswan libnss3-tools
  unpack trixie openiked openiked
  unpack trixie libreswan libreswan libnss3-tools
  for release in bookworm trixie forky; do unpack $release tshark tshark; done
  rm -rf "$unpacked"/apt-*
}

# more: what is unpacked besides.
more() {
  case $1 in
    peers) peers ;;
    kernels) kernels ;;
  esac
}

have() {
  case $1 in
    python:*) /usr/bin/python3 -c "import ${1#python:}" 2>/dev/null ;;
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
while read -r what package; do
  [ -z "$what" ] || have "$what" || missing+=("$package")
done <<<"$wanted"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  [ ${#missing[@]} -gt 0 ] || exit 0
  echo "install.sh: not installed: ${missing[*]} (run make test as root on Debian to install them)" >&2
  exit 0
fi
if [ ${#missing[@]} = 0 ]; then
  more "${1:-}"
  exit 0
fi
echo "install.sh: installing ${missing[*]}"

# The packages bring services that would start here; the tests start their own
# in namespaces of their own. policy-rc.d is Debian's way to say no.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
more "${1:-}"
