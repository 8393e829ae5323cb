#!/usr/bin/env bash
# Subject:   strongSwan 5.9.8 (Debian 12, strongswan-pki 5.9.8-5), `pki --print`; a certificate of openssl 3.0
# Expected:  a part of a distinguished name that has two values is written with a plus between them (RFC 4514 section 2.2,
#            and as openssl does), so that what is shown can be told from, and read back as, the name that it is.
# Behaviour: its values stand there like two parts, in the order of their bytes. A certificate with one part of two values
#            and one with two parts differ in the order alone, and the text read back is another name than the certificate's.
# Seen:      2026-11-30:
#            openssl: one part: C=CH,O=Example,serialNumber=42+CN=them    two parts: C=CH,O=Example,CN=them,serialNumber=42
#            pki:     one part: C=CH, O=Example, serialNumber=42, CN=them two parts: C=CH, O=Example, CN=them, serialNumber=42
# Needs:     root (unshare -m), apt-get with Debian 12's packages, openssl. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
v=5.9.8-5+deb12u6
apt-get download -q strongswan-pki=$v libstrongswan=$v libstrongswan-standard-plugins=$v libstrongswan-extra-plugins=$v \
  strongswan-libcharon=$v libcharon-extra-plugins=$v >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
printf 'libstrongswan {\n}\n' >strongswan.conf
make_one() { openssl req -x509 -newkey ed25519 -nodes -keyout key.pem -out "$1" -days 30 "${@:2}" >/dev/null 2>&1; }
make_one one.pem -multivalue-rdn -subj /C=CH/O=Example/CN=them+serialNumber=42
make_one two.pem -subj /C=CH/O=Example/CN=them/serialNumber=42
# The path of its plugins is compiled in.
shown() {
  unshare -m bash -c "mount -t overlay -o lowerdir=$dir/root/usr/lib:/usr/lib overlay /usr/lib &&
    STRONGSWAN_CONF=$dir/strongswan.conf LD_LIBRARY_PATH=/usr/lib/ipsec $dir/root/usr/bin/pki --print --in $dir/$1" 2>/dev/null |
    sed -n 's/^ *subject: *"\(.*\)"$/\1/p'
}
for c in one two; do
  openssl x509 -in $c.pem -noout -subject -nameopt RFC2253,-dn_rev
  echo "pki, $c: $(shown $c.pem)"
done
[ "$(shown one.pem)" = "C=CH, O=Example, serialNumber=42, CN=them" ] && [ "$(shown two.pem)" = "C=CH, O=Example, CN=them, serialNumber=42" ]
