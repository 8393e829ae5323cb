package ike

import (
	"bytes"
	"crypto/mlkem"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/esp/wycheproof"
)

// keyGroup is what a group of vectors says of all.
type keyGroup struct {
	Type, ParameterSet string
	PublicKeyDer       wycheproof.Bytes // SubjectPublicKeyInfo
}

type keyVector struct {
	ID     int `json:"tcId"`
	Result string
	Flags  []string

	Public, Private, Shared wycheproof.Bytes // key agreement
	Seed, EK, C, K          wycheproof.Bytes // ML-KEM
	Msg, Sig                wycheproof.Bytes // signatures
}

func (w *keyVector) has(flag string) bool { return slices.Contains(w.Flags, flag) }

// eachKey runs f for each vector of a file, of which at least n are of a form that
// IKE has, valid ones among them.
func eachKey(t *testing.T, from wycheproof.Vectors, file string, n int, f func(g *keyGroup, w *keyVector) (ok, tried bool)) {
	t.Helper()
	valid := 0
	wycheproof.Each(t, from, file, n, func(g *keyGroup, w *keyVector) bool {
		ok, tried := f(g, w)
		if tried && !ok {
			t.Errorf("%s %d, %s %v: the outcome is another", file, w.ID, w.Result, w.Flags)
		}
		if tried && w.Result == "valid" {
			valid++
		}
		return tried
	})
	if valid == 0 {
		t.Errorf("%s: no valid vector was tried", file)
	}
}

// TestWycheproofKeyExchange holds every curve and ML-KEM, with public values as a
// KE payload has them, to Project Wycheproof: what must not be taken is refused.
func TestWycheproofKeyExchange(t *testing.T) {
	vectors := wycheproof.Fetch(t)
	for _, c := range []struct {
		file string
		id   uint16
		n    int
	}{{"x25519", KEX25519, 500}, {"ecdh_secp256r1_ecpoint", KEP256, 340}, {"ecdh_secp384r1_ecpoint", KEP384, 780}, {"ecdh_secp521r1_ecpoint", KEP521, 650}} {
		eachKey(t, vectors, c.file, c.n, func(g *keyGroup, w *keyVector) (ok, tried bool) {
			e := curves[c.id]
			scalar := bytes.TrimLeft(w.Private, "\x00")
			if c.id == KEX25519 {
				scalar = w.Private
			}
			if len(scalar) > e.size {
				return false, false
			}
			priv, err := e.curve.NewPrivateKey(append(make([]byte, e.size-len(scalar)), scalar...))
			if err != nil {
				return false, true
			}
			public := w.Public
			good := w.Result != "invalid" && !w.has("ZeroSharedSecret")
			if e.point { // RFC 5903 section 7: x and y, no other form
				good = good && len(public) > 0 && public[0] == 4
				public = public[min(1, len(public)):]
			}
			got, err := dh{c.id, priv}.shared(public)
			if !good {
				return err != nil, true
			}
			return err == nil && bytes.Equal(got, w.Shared), true
		})
	}
	eachKey(t, vectors, "mlkem", 13, func(g *keyGroup, w *keyVector) (ok, tried bool) {
		if g.ParameterSet != "ML-KEM-768" {
			return false, false
		}
		if g.Type == "MLKEMEncapsTest" {
			_, _, err := kexSource{}.respond(KEMLKEM768, w.EK)
			_, err2 := kexSource{}.answer(KEMLKEM768, w.EK)
			return (err == nil) == (w.Result == "valid") && (err2 == nil) == (err == nil), true
		}
		dk, err := mlkem.NewDecapsulationKey768(w.Seed)
		if err != nil {
			return false, true
		}
		got, err := kem{dk}.shared(w.C)
		return err == nil && bytes.Equal(kem{dk}.public(), w.EK) && bytes.Equal(got, w.K), true
	})
}

// TestWycheproofSignatures holds the verification of AUTH, in the form of RFC 7427
// and in those of before, to Project Wycheproof: all signatures of a kind that IKE
// has, with keys that it takes.
func TestWycheproofSignatures(t *testing.T) {
	vectors := wycheproof.Fetch(t)
	named := func(alg string) func(sig []byte) (uint8, []byte) {
		i := slices.IndexFunc(sigAlgs, func(a sigAlg) bool { return a.name == alg })
		return func(sig []byte) (uint8, []byte) {
			return authSignature, slices.Concat([]byte{byte(len(sigAlgs[i].der))}, sigAlgs[i].der, sig)
		}
	}
	plain := func(method uint8) func(sig []byte) (uint8, []byte) {
		return func(sig []byte) (uint8, []byte) { return method, sig }
	}
	check := func(file string, n int, as func(sig []byte) (uint8, []byte)) {
		eachKey(t, vectors, file, n, func(g *keyGroup, w *keyVector) (ok, tried bool) {
			pub, err := x509.ParsePKIXPublicKey(g.PublicKeyDer)
			if err != nil || checkKey(pub) != nil {
				return false, false // no such key gets as far as a signature
			}
			method, data := as(w.Sig)
			if method == authRSA && w.has("WrongHash") {
				return false, false // the signature itself says which hash it is of
			}
			// What is "acceptable" is of a form that is not the one of the RFC.
			return (verify(pub, method, data, w.Msg) == nil) == (w.Result == "valid"), true
		})
	}
	check("ed25519", 150, named("ed25519"))
	for _, c := range []struct{ bits, hash string }{{"256", "256"}, {"256", "512"}, {"384", "256"}, {"384", "384"}, {"384", "512"}, {"521", "512"}} {
		check("ecdsa_secp"+c.bits+"r1_sha"+c.hash, 430, named("ecdsa-with-sha"+c.hash))
	}
	check("ecdsa_secp256r1_sha256_p1363", 250, plain(authECDSA256))
	check("ecdsa_secp384r1_sha384_p1363", 250, plain(authECDSA384))
	check("ecdsa_secp521r1_sha512_p1363", 250, plain(authECDSA521))
	for _, bits := range []string{"2048", "3072", "4096"} {
		for _, hash := range []string{"256", "384", "512"} {
			file := "rsa_signature_" + bits + "_sha" + hash
			if !vectors.Has(file) {
				continue
			}
			check(file, 240, named("rsa-sha"+hash))
			check(file, 230, plain(authRSA))
		}
	}
	for _, file := range []string{"2048_sha256_mgf1_32", "2048_sha384_mgf1_48", "3072_sha256_mgf1_32", "4096_sha256_mgf1_32", "4096_sha384_mgf1_48", "4096_sha512_mgf1_64"} {
		check("rsa_pss_"+file, 60, named("rsassa-pss-"+strings.Split(file, "_")[1]))
	}
}
