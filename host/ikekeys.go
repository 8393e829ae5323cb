package host

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// readProof reads the files by which both sides of an ike block prove who they
// are. An error is a misfit.
func readProof(k *rules.IKE, p *ike.Peer) error {
	for _, f := range []struct {
		arg, path string
		read      func(path string) error
	}{
		{"private_key", k.PrivateKey, func(path string) (err error) { p.Key, err = readPrivateKey(path); return err }},
		{"certificate", k.Certificate, func(path string) (err error) { p.Certificates, err = readCertificates(path); return err }},
		{"ca", k.CA, func(path string) (err error) { p.CAs, err = readCertificates(path); return err }},
		{"crl", k.CRL, func(path string) (err error) { p.CRLs, err = readCRLs(path); return err }},
		{"public_keys", k.PublicKeys, func(path string) (err error) { p.PublicKeys, err = readPublicKeys(path); return err }},
		{"psk_file", k.PSKFile, func(path string) (err error) { p.PSK, err = readPSK(path); return err }},
		{"ppk_file", k.PPKFile, func(path string) (err error) { p.PPKs, err = readPPKs(path); return err }},
	} {
		if f.path == "" {
			continue
		}
		if err := f.read(f.path); err != nil {
			return &misfit{"ike", k.Name, f.arg, k.Places[f.arg], err}
		}
	}
	return nil
}

// readPrivateKey reads a private key: PKCS #8, or what openssl wrote before
// that.
func readPrivateKey(path string) (crypto.Signer, error) {
	text, err := rules.ReadSecret(path)
	defer clear(text)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, fmt.Errorf("%s is encrypted, and the daemon has nobody to ask for the pass phrase: store the key without one, mode 0600", path)
		default:
			continue // parameters, certificates
		}
		clear(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s holds no private key that ipfw can read", path) // not the error: it may quote
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%s holds a key that cannot sign; ipfw takes Ed25519, ECDSA and RSA", path)
		}
		return signer, nil
	}
	return nil, fmt.Errorf("%s holds no private key in PEM form", path)
}

// maxPEM is far more than certificates of all CAs that systems come with take.
const maxPEM = 4 << 20

// eachPEM calls f for every block of a type in a file.
func eachPEM(path, kind string, f func(der []byte) error) error {
	text, err := rules.ReadFile(path, maxPEM)
	if err != nil {
		return err
	}
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			continue
		}
		if err := f(block.Bytes); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s holds no %s in PEM form", path, strings.ToLower(kind))
	}
	return nil
}

func readCertificates(path string) (list []*x509.Certificate, err error) {
	err = eachPEM(path, "CERTIFICATE", func(der []byte) error {
		c, err := x509.ParseCertificate(der)
		list = append(list, c)
		return err
	})
	return list, err
}

func readCRLs(path string) (list []*x509.RevocationList, err error) {
	err = eachPEM(path, "X509 CRL", func(der []byte) error {
		c, err := x509.ParseRevocationList(der)
		list = append(list, c)
		return err
	})
	return list, err
}

// readPublicKeys reads a folder of raw public keys, as OpenIKED keeps them: one
// file for each peer, with its identity for a name.
func readPublicKeys(dir string) (map[string]crypto.PublicKey, error) {
	files, err := rules.FilesIn(dir, ".pub")
	if err != nil {
		return nil, err
	}
	keys := map[string]crypto.PublicKey{}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".pub")
		if _, err := ike.ParseIdentity(name); err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		err := eachPEM(path, "PUBLIC KEY", func(der []byte) error {
			if keys[name] != nil {
				return errors.New("more than one public key; each peer has a file of its own")
			}
			key, err := x509.ParsePKIXPublicKey(der)
			keys[name] = key
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no NAME.pub: nobody could prove who they are; put the public key of each peer there", dir)
	}
	return keys, nil
}

// minPSK is the shortest pre-shared key taken: what is shorter can be guessed
// by whoever has sat in the middle once (RFC 7296 section 2.15).
const minPSK = 16

// readPSK reads a pre-shared key: the one line of the file, in hexadecimal
// after "0x".
func readPSK(path string) ([]byte, error) {
	text, err := rules.ReadSecret(path)
	defer clear(text)
	if err != nil {
		return nil, err
	}
	line := bytes.TrimRight(text, "\r\n")
	if bytes.ContainsAny(line, "\r\n") {
		return nil, fmt.Errorf("%s has more than one line; a pre-shared key is one line, and each peer has an ike block of its own", path)
	}
	return secretOf(line, path)
}

func secretOf(word []byte, path string) ([]byte, error) {
	key := bytes.Clone(word)
	if digits, ok := bytes.CutPrefix(word, []byte("0x")); ok {
		n, err := hex.Decode(key, digits)
		if err != nil {
			clear(key)
			return nil, fmt.Errorf("%s: after 0x there is no even number of hexadecimal digits", path)
		}
		clear(key[n:])
		key = key[:n]
	}
	if len(key) < minPSK {
		clear(key)
		return nil, fmt.Errorf("%s: a key of %d bytes can be guessed; take at least %d: openssl rand -base64 32", path, len(key), minPSK)
	}
	return key, nil
}

// readPPKs reads post-quantum pre-shared keys (RFC 8784): lines NAME = KEY,
// with empty lines and # comments between.
func readPPKs(path string) (map[string][]byte, error) {
	text, err := rules.ReadSecret(path)
	defer clear(text)
	if err != nil {
		return nil, err
	}
	keys := map[string][]byte{}
	for n, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, word, ok := bytes.Cut(line, []byte("="))
		id := string(bytes.TrimSpace(name))
		if !ok || id == "" || keys[id] != nil {
			return nil, fmt.Errorf("%s line %d is not NAME = KEY with a name of its own", path, n+1)
		}
		if keys[id], err = secretOf(bytes.TrimSpace(word), fmt.Sprintf("%s line %d", path, n+1)); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no key: it has lines NAME = KEY", path)
	}
	return keys, nil
}
