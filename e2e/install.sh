#!/usr/bin/env bash
# install.sh: Debian packages that the end-to-end tests and the benchmark use;
# `install.sh peers` as well unpacks the IKE daemons of others, for make
# test-peers. It installs what is missing when it is root; otherwise it says what
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

# IKE daemons of others are unpacked, not installed: their packages would
# upgrade the machine's init and start services. Each comes with every library
# that it needs, the C library too, and runs by its own loader. apt verifies all
# of it, with lists and a state of its own; the machine's are not touched.
unpacked=/var/cache/ipfw-e2e

# debian: where the machine's own apt has Debian's packages from. Every release
# is there.
debian() {
  local found
  found=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "main" && ($3 == "Debian" || $1 ~ /\/debian\/$/) && $1 !~ /security/ { print $1; exit }')
  if [ -z "$found" ]; then
    echo "install.sh: apt on this machine has no source of Debian's main packages; write one to /etc/apt/sources.list.d and run apt-get update (the IKE daemons of others come from there)" >&2
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

# unpack SUITE NAME PACKAGE...: to SUITE-NAME.
unpack() {
  local suite=$1 to=$unpacked/$1-$2 tmp names
  shift 2
  [ ! -d "$to" ] || return 0
  echo "install.sh: unpacking $* of $suite to $to"
  apt_of "$suite" check # has its lists
  tmp=$(mktemp -d "$unpacked/new.XXXXXX")
  chmod 755 "$tmp"
  mkdir "$tmp/root"
  names=$(apt_of "$suite" install -s --no-install-recommends "$@" | awk '$1 == "Inst" { print $2 }' | grep -E "^(lib|zlib1g$|$(echo "$*" | tr ' ' '|'))")
  # shellcheck disable=SC2086 # a list of packages
  (cd "$tmp" && apt_of "$suite" download $names >/dev/null && for d in *.deb; do dpkg -x "$d" root; done)
  mv "$tmp/root" "$to"
  rm -rf "$tmp"
}

# The strongSwan of forky has ML-KEM; that of trixie, 6.0.1, is built without.
peers() {
  mkdir -p "$unpacked"
  exec 9>"$unpacked/lock"
  flock 9 # of two at a time one waits
  rm -rf "$unpacked"/new.* # of one that was killed
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
  [ "${1:-}" != peers ] || peers
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
[ "${1:-}" != peers ] || peers
