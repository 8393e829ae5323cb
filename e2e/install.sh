#!/usr/bin/env bash
# install.sh: Debian packages that the end-to-end tests and the benchmark use.
# Installs what is missing when it is root; otherwise says what is missing, and
# the tests that need it are skipped.
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
nginx          nginx-light
curl           curl
nmap           nmap
openssl        openssl
iperf3         iperf3
tcpdump        tcpdump
tshark         tshark
python3        python3
python:scapy   python3-scapy
linux.uml      user-mode-linux
depmod         kmod
'

# IKE daemons of others are unpacked, not installed: their packages would
# upgrade the machine's init and start services.
unpacked=/var/cache/ipfw-e2e
strongswan='libstrongswan libstrongswan-standard-plugins libstrongswan-extra-plugins strongswan-libcharon strongswan-charon
  strongswan-swanctl libcharon-extra-plugins libtss2-mu0 libtss2-sys1'
# One that has ML-KEM. Debian's first is in the release after trixie, whose
# strongSwan 6.0.1 is built without.
strongswan6='strongswan-charon strongswan-libcharon strongswan-swanctl libstrongswan-extra-plugins libcharon-extra-plugins'

# unpack FOLDER PACKAGE...
unpack() {
  local to=$unpacked/$1 tmp
  shift
  [ ! -d "$to" ] || return 0
  mkdir -p "$unpacked"
  tmp=$(mktemp -d "$unpacked/new.XXXXXX")
  chmod 755 "$tmp"
  echo "install.sh: unpacking $* to $to"
  (cd "$tmp" && apt-get update -qq </dev/null && apt-get -o APT::Sandbox::User=root download -qq "$@" </dev/null >/dev/null &&
    for d in *.deb; do dpkg -x "$d" .; done && rm ./*.deb)
  mv "$tmp" "$to"
}

# unpack_of SUITE FOLDER PACKAGE...: packages of another release of Debian, with
# every library that they need, the C library too: they run by its own loader.
# apt verifies all of it, with lists and a state of its own; the machine's are
# not touched.
unpack_of() {
  local suite=$1 to=$unpacked/$2 tmp mirror names
  shift 2
  [ ! -d "$to" ] || return 0
  mkdir -p "$unpacked"
  tmp=$(mktemp -d "$unpacked/new.XXXXXX")
  chmod 755 "$tmp"
  mkdir -p "$tmp"/apt/{lists,archives}/partial "$tmp/apt/none" "$tmp/root"
  : >"$tmp/apt/status"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 '/debian/$' || echo http://deb.debian.org/debian/)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$tmp/apt/sources.list"
  echo "install.sh: unpacking $* of $suite to $to"
  apt_of() {
    apt-get -o Dir::State="$tmp/apt" -o Dir::State::status="$tmp/apt/status" -o Dir::Cache="$tmp/apt" -o Dir::Etc::sourcelist="$tmp/apt/sources.list" \
      -o Dir::Etc::sourceparts="$tmp/apt/none" -o Dir::Etc::preferencesparts="$tmp/apt/none" -o APT::Sandbox::User=root -o Acquire::Languages=none -qq "$@" </dev/null
  }
  apt_of update
  names=$(apt_of install -s --no-install-recommends "$@" | awk '$1 == "Inst" { print $2 }' | grep -E "^(lib|zlib1g$|$(echo "$*" | tr ' ' '|'))")
  # shellcheck disable=SC2086 # a list of packages
  (cd "$tmp/apt" && apt_of download $names >/dev/null && for d in *.deb; do dpkg -x "$d" "$tmp/root"; done)
  rm -rf "$tmp/apt"
  mv "$tmp/root" "$to"
  rmdir "$tmp"
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
peers() {
  # shellcheck disable=SC2086 # lists of packages
  unpack strongswan $strongswan
  unpack_of forky strongswan6 $strongswan6
  unpack openiked openiked
  unpack libreswan libreswan libldns3 libevent-pthreads-2.1-7 libnss3-tools
}

if [ ${#missing[@]} = 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  peers
  exit 0
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "install.sh: not installed: ${missing[*]} (run make test as root on Debian to install them)" >&2
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
peers
