#!/usr/bin/env bash
# Subject:   scapy 2.5.0 (Debian 12, python3-scapy 2.5.0+dfsg-2), scapy.layers.ipsec: ESP in UDP (nat_t_header)
# Expected:  the UDP header of a sealed packet has the length of header and ESP (RFC 3948 section 2.1, RFC 768), as the IP
#            header has its own.
# Behaviour: the length is 8, that of the UDP header alone. A receiver sees an empty datagram; scapy too, when it reads what it
#            has written.
# Seen:      2026-11-30: IP length 88, UDP length 8; read again: IP / UDP 192.0.2.1:ipsec_nat_t > 192.0.2.2:ipsec_nat_t / Padding
# Needs:     apt-get with Debian 12's packages, its python3. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q python3-scapy=2.5.0+dfsg-2 python3-cryptography python3-cffi-backend >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export PYTHONPATH=$dir/root/usr/lib/python3/dist-packages HOME=$dir
cat >udp.py <<'P'
import warnings
warnings.filterwarnings("ignore")
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation

sa = SecurityAssociation(ESP, spi=0x1000, crypt_algo="AES-GCM", crypt_key=bytes(20), nat_t_header=UDP(sport=4500, dport=4500))
again = IP(bytes(sa.encrypt(IP(src="192.0.2.1", dst="192.0.2.2") / TCP() / b"hello")))
print("IP length", again.len, "UDP length", again[UDP].len, "ESP:", ESP in again, "-", again.summary())
P
/usr/bin/python3 udp.py | tee seen.txt
grep -q 'UDP length 8 ESP: False' seen.txt
