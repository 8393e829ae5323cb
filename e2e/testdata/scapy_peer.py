"""Scapy's IPsec layer as a program: JSON lines in, JSON lines out.

in   {"op": "seal" | "open", "packet": hex, "sa": {...}}
out  {"packet": hex} or {"error": text}

The SA carries scapy's own names for its algorithms; the Go side translates.
"""
import json
import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.ipsec import AH, ESP, SecurityAssociation  # noqa: E402


def parse(data):
    return IPv6(data) if data[0] >> 4 == 6 else IP(data)


def association(d):
    options = {}
    if d.get("tunnel"):
        src, dst = d["tunnel"]
        options["tunnel_header"] = IPv6(src=src, dst=dst) if ":" in src else IP(src=src, dst=dst)
    if d.get("ports"):
        options["nat_t_header"] = UDP(sport=d["ports"][0], dport=d["ports"][1])
    if d.get("encryption"):
        options["crypt_algo"] = d["encryption"]
        options["crypt_key"] = bytes.fromhex(d["encryption_key"])
    if d.get("integrity"):
        options["auth_algo"] = d["integrity"]
        options["auth_key"] = bytes.fromhex(d["integrity_key"])
    return SecurityAssociation(AH if d["protocol"] == "ah" else ESP, spi=d["spi"], seq_num=d["seq"],
                               esn_en=d["esn"], esn=d["high"], **options)


def mended(sealed):
    """scapy 2.5 computes the UDP length over IPv4 before ESP is behind it: 8."""
    data = bytearray(bytes(sealed))
    if data[0] >> 4 == 4 and sealed.haslayer(UDP) and sealed.haslayer(ESP):
        at = (data[0] & 15) * 4
        data[at + 4:at + 6] = (len(data) - at).to_bytes(2, "big")
    return bytes(data)


def bare(packet):
    """scapy 2.5 leaves the UDP header in what it opens over IPv6: take it off before."""
    if packet.version == 6 and packet.haslayer(UDP) and packet.haslayer(ESP):
        esp = bytes(packet[UDP].payload)
        return IPv6(src=packet.src, dst=packet.dst, hlim=packet.hlim, nh=50) / ESP(esp)
    return packet


for line in sys.stdin:
    ask = json.loads(line)
    try:
        sa, packet = association(ask["sa"]), parse(bytes.fromhex(ask["packet"]))
        done = mended(sa.encrypt(packet)) if ask["op"] == "seal" else bytes(sa.decrypt(bare(packet)))
        answer = {"packet": done.hex()}
    except Exception as e:  # scapy has no common base of what it raises
        answer = {"error": "%s: %s" % (type(e).__name__, e)}
    print(json.dumps(answer), flush=True)
