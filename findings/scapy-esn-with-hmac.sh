#!/usr/bin/env bash
# Subject:   scapy 2.5.0 (Debian 12, python3-scapy 2.5.0+dfsg-2), scapy.layers.ipsec: ESP with extended sequence numbers
# Expected:  with esn_en the high half of the number is part of what the ICV covers (RFC 4303 section 2.2.1), for a cipher with
#            an integrity algorithm of its own as for AES-GCM.
# Behaviour: for AES-GCM it is. For AES-CBC with HMAC it is left out when sealing, and not asked for when opening: what scapy
#            has sealed is refused by others, and what others have sealed is refused by scapy.
# Seen:      2026-11-30: AES-CBC, SHA2-256-128, high half 1: the ICV is that of the packet without the high half
# Needs:     apt-get with Debian 12's packages, its python3. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q python3-scapy=2.5.0+dfsg-2 python3-cryptography python3-cffi-backend >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export PYTHONPATH=$dir/root/usr/lib/python3/dist-packages HOME=$dir
cat >esn.py <<'P'
import hashlib, hmac, struct, warnings
warnings.filterwarnings("ignore")
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation

key = bytes(32)
sa = SecurityAssociation(ESP, spi=0x1000, crypt_algo="AES-CBC", crypt_key=bytes(16), auth_algo="SHA2-256-128", auth_key=key, esn_en=True, esn=1)
sealed = bytes(sa.encrypt(IP(src="192.0.2.1", dst="192.0.2.2") / UDP() / b"hello", seq_num=5)[ESP])
covered, icv = sealed[:-16], sealed[-16:]
def fits(tail): return hmac.new(key, covered + tail, hashlib.sha256).digest()[:16] == icv
print("with the high half:", fits(struct.pack("!I", 1)), "without it:", fits(b""))
P
/usr/bin/python3 esn.py | tee seen.txt
grep -q 'with the high half: False without it: True' seen.txt
