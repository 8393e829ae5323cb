package rules

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// ikeBlocks reads the ike blocks.
func (l *loader) ikeBlocks() {
	seen := map[string]hcl.Range{}
	for _, b := range l.blocks["ike"] {
		i := l.ike(b)
		if len(b.Labels) > 0 {
			l.unique(b, seen)
			l.policy.IKE = append(l.policy.IKE, i)
		}
	}
}

// DefaultMaxSAs is how many IKE SAs one identity may have unless its ike block
// says another number.
const DefaultMaxSAs = 8

// ike reads one ike block.
func (l *loader) ike(b *hclsyntax.Block) IKE {
	k := l.open(b, []string{"local_endpoint", "remote_endpoint", "local_id", "remote_id",
		"certificate", "private_key", "ca", "crl", "public_keys", "psk_file", "ppk_file", "ppk_id", "ppk_required", "remote_auth",
		"pool", "dns", "dns_domains", "request_address", "mobike", "encryption", "integrity", "prf", "key_exchange", "lifetime", "dead_peer_detection", "initiate",
		"retransmit_timeout", "retransmit_base", "retransmit_tries",
		"max_sas_per_identity", "full_transcript_auth"}, nil)
	i := IKE{Name: k.name, Place: l.place(b.DefRange()), Places: k.places()}
	i.LocalEndpoint = k.address("local_endpoint")
	if linkLocal(i.LocalEndpoint) {
		l.fail(k.at("local_endpoint"), "Wrong value", "%s.", errLinkLocal(i.LocalEndpoint.String()))
	}
	k.remote(&i)
	i.LocalID = k.str("local_id", "the identity that this side proves")
	i.RemoteID = k.str("remote_id", `an identity, with "*" for any run of characters`)
	k.proof(&i)
	k.pool(&i)
	i.Encryption = k.algorithms("encryption", ikeEncryptions)
	i.Integrity = k.algorithms("integrity", ikeIntegrities)
	i.PRF = k.algorithms("prf", prfs)
	i.KeyExchange = k.algorithms("key_exchange", keyExchanges)
	k.integrityFits(i.Encryption, i.Integrity)
	i.MOBIKE = k.flag("mobike", true)
	i.FullTranscript = Transcript(k.word("full_transcript_auth", transcriptNames, int(TranscriptAuto)))
	i.RequestAddress = k.flag("request_address", false)
	i.MaxSAsPerIdentity = int(k.integer("max_sas_per_identity", 1, 100000, DefaultMaxSAs))
	if i.RequestAddress && k.has("pool") {
		l.fail(k.at("request_address"), "Arguments do not fit", "A block either gives addresses from a pool or asks for one.")
	}
	def := InitiateTraffic
	if k.eap(&i) {
		def = InitiateNever
	}
	i.Lifetime = k.duration("lifetime", time.Minute, maxLifetime)
	i.DeadPeerDetection = k.duration("dead_peer_detection", time.Second, 24*time.Hour)
	k.retransmit(&i)
	i.Initiate = Initiate(k.word("initiate", initiateNames, int(def)))
	if i.EAP && i.Initiate != InitiateNever {
		l.fail(k.at("initiate"), "Arguments do not fit", `Who proves itself by EAP calls: with remote_auth = "eap-tls" initiate is "never".`)
	}
	if i.Initiate == InitiateStart && !i.callable() {
		l.fail(k.at("initiate"), "Arguments do not fit", `initiate = "start" needs a remote_endpoint that can be called: one address or a DNS name.`)
	}
	return i
}

// callable reports whether the policy says where the peer is.
func (i *IKE) callable() bool {
	for _, e := range i.Remote {
		if e.Name != "" || e.Range.First == e.Range.Last {
			return true
		}
	}
	return false
}

// remote reads where the peers may be.
func (k block) remote(i *IKE) {
	items, set, ok := k.list("remote_endpoint")
	if !set || len(items) == 1 && isText(items[0], "any") {
		return
	}
	if len(items) == 0 && ok {
		k.wrong(k.at("remote_endpoint"), "remote_endpoint", "an address, a range, a DNS name or a list of them; an empty list is nobody, leave it out for anybody")
	}
	add := into(k, &i.Remote, parseEndpoint)
	for _, it := range items {
		add(it)
	}
	for _, e := range i.Remote {
		if a := i.LocalEndpoint; a.IsValid() && e.Name == "" && a.Is4() != e.Range.First.Is4() {
			k.l.fail(k.at("remote_endpoint"), "Arguments do not fit", "local_endpoint and remote_endpoint are of different families.")
			break
		}
	}
}

// proof reads how each side proves itself: certificates, raw public keys or a
// pre-shared key, one of them.
func (k block) proof(i *IKE) {
	l := k.l
	i.Certificate, i.CA, i.CRL = k.path("certificate"), k.path("ca"), k.path("crl")
	i.PublicKeys = k.path("public_keys")
	i.PrivateKey, i.PSKFile, i.PPKFile = k.path("private_key"), k.path("psk_file"), k.path("ppk_file")
	for _, arg := range []string{"certificate", "ca", "crl", "public_keys"} {
		k.plainFile(arg, map[string]string{"certificate": i.Certificate, "ca": i.CA, "crl": i.CRL, "public_keys": i.PublicKeys}[arg])
	}
	k.secretFile("private_key", i.PrivateKey)
	k.secretFile("psk_file", i.PSKFile)
	k.secretFile("ppk_file", i.PPKFile)
	i.PPKID = k.str("ppk_id", "the name of a key in ppk_file")
	i.PPKRequired = k.flag("ppk_required", false)
	for _, arg := range []string{"ppk_id", "ppk_required"} {
		if k.has(arg) && !k.has("ppk_file") {
			l.missing(k.at(arg), "Arguments do not fit", "%s goes with ppk_file, which holds the keys.", arg)
		}
	}

	var ways []string
	for _, arg := range []string{"certificate", "public_keys", "psk_file"} {
		if k.has(arg) {
			ways = append(ways, arg)
		}
	}
	switch {
	case len(ways) == 0:
		l.missing(k.b.DefRange(), "Argument missing",
			"%s has no way to prove who is who: write certificate, private_key and ca; or public_keys and private_key; or psk_file.", k.subject())
		return
	case len(ways) > 1:
		l.fail(k.at(ways[1]), "Arguments do not fit", "%s and %s are two ways to prove who is who: keep one, or write two ike blocks.", ways[0], ways[1])
		return
	}
	switch ways[0] {
	case "certificate":
		k.require("private_key", "a certificate is of use to those only who have its key")
		k.require("ca", "it says whose word counts for the certificate of the peer")
	case "public_keys":
		k.require("private_key", "this side needs a key of its own; its public half goes to the peers")
		k.require("local_id", "peers know a raw public key by the name of its owner")
	case "psk_file":
		if k.has("private_key") {
			l.fail(k.at("private_key"), "Arguments do not fit", "private_key goes with certificate or public_keys; a psk_file needs no other key.")
		}
	}
	for _, arg := range []string{"ca", "crl"} {
		if k.has(arg) && ways[0] != "certificate" {
			l.fail(k.at(arg), "Arguments do not fit", "%s goes with certificate; this block proves itself by %s.", arg, ways[0])
		}
	}
}

// remoteAuths are the ways in which the peer proves itself: as this side does,
// or otherwise.
var remoteAuths = []string{"same", "eap-tls"}

// eap reads whether callers prove themselves by EAP.
func (k block) eap(i *IKE) bool {
	i.EAP = k.word("remote_auth", remoteAuths, 0) == 1
	if !i.EAP {
		return false
	}
	for _, arg := range []string{"public_keys", "psk_file", "ppk_file", "request_address"} {
		if k.has(arg) {
			k.l.fail(k.at(arg), "Arguments do not fit", `%s does not go with remote_auth = "eap-tls": this side proves itself by certificate and private_key, and calls come from persons with a certificate of ca.`, arg)
		}
	}
	return true
}

// maxPools bounds the ranges of a pool: each is compared with each other one.
const maxPools = 1024

// pool reads what a gateway gives to its callers (RFC 7296 section 3.15).
func (k block) pool(i *IKE) {
	items, set, ok := k.list("pool")
	if len(items) > maxPools {
		k.l.fail(k.at("pool"), "Wrong value", "pool has at most %d ranges.", maxPools)
		return
	}
	add := into(k, &i.Pool, parsePrefix)
	for _, it := range items {
		add(it)
	}
	if set && ok && len(items) == 0 {
		k.wrong(k.at("pool"), "pool", "a range of addresses, as in 10.99.0.0/24, or a list of them")
	}
	for n, p := range i.Pool {
		for _, q := range i.Pool[:n] {
			if p.Overlaps(q) {
				k.l.fail(k.at("pool"), "Arguments do not fit", "%s and %s have addresses in common: two callers would get the same one.", q, p)
			}
		}
	}
	items, _, _ = k.list("dns")
	addDNS := into(k, &i.DNS, parseAddr)
	for _, it := range items {
		addDNS(it)
	}
	items, _, _ = k.list("dns_domains")
	if len(items) > 32 {
		k.l.fail(k.at("dns_domains"), "Wrong value", "dns_domains has at most 32 names: callers take no more.")
		return
	}
	addDomain := into(k, &i.DNSDomains, parseDomain)
	for _, it := range items {
		addDomain(it)
	}
	if len(i.DNSDomains) > 0 && k.b.Body.Attributes["dns"] == nil {
		k.l.missing(k.at("dns_domains"), "Arguments do not fit", "dns_domains says what the servers of dns are asked for: it needs dns.")
	}
	if len(i.DNS) > 0 && len(i.Pool) == 0 && k.b.Body.Attributes["pool"] == nil {
		k.l.missing(k.at("dns"), "Arguments do not fit", "dns is given to callers that get an address: it needs a pool.")
	}
}

// parseDomain reads a domain that is told to callers.
func parseDomain(s string) (string, error) {
	if !isHostName(s) {
		return "", fmt.Errorf("%q is no domain: write it as in corp.example, in letters, digits and hyphens", s)
	}
	return strings.ToLower(strings.TrimSuffix(s, ".")), nil
}
