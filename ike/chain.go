package ike

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file verifies certificates that strangers send. What it costs them to
// make is nothing, so all of it is bounded before the first signature is looked
// at.

const (
	// maxChain is how many certificates one peer may send: its own and four
	// of CAs.
	maxChain = 5
	// maxChainBytes bounds them together. RSA keys of 4,096 bits and many
	// names come to a third of it.
	maxChainBytes = 32 << 10
	// maxConstraints bounds how often names are compared with the name
	// constraints (RFC 5280 section 4.2.1.10) of certificates that a peer may
	// have made itself.
	maxConstraints = 10_000
)

// shown are the certificates that a peer has sent. They are read once, and
// verified once for each set of CAs, however many ike blocks they may be for.
type shown struct {
	certs  []*x509.Certificate // leaf first
	err    error               // why they will not do for anybody
	chains []verified
}

// verified is what came of one set of CAs.
type verified struct {
	by    *Peer // has these CAs and revocation lists
	usage x509.ExtKeyUsage
	until time.Time // when a certificate of the chain, or a revocation list, ends
	err   error
}

func (w *shown) leaf() *x509.Certificate { return w.certs[0] }

// readShown reads certificates, and refuses what would be costly to verify.
// Those of CAs that cannot be read are left out.
func readShown(list [][]byte) *shown {
	w := &shown{}
	if len(list) > maxChain {
		w.err = fmt.Errorf("%d certificates, %d are allowed", len(list), maxChain)
		return w
	}
	size := 0
	for _, b := range list {
		size += len(b)
	}
	if size > maxChainBytes {
		w.err = fmt.Errorf("certificates of %d bytes together, %d are allowed", size, maxChainBytes)
		return w
	}
	for i, b := range list {
		c, err := x509.ParseCertificate(b)
		if err == nil {
			err = tooLong(c.PublicKey)
		} else if i > 0 {
			continue
		}
		if err != nil {
			w.err = err
			return w
		}
		w.certs = append(w.certs, c)
	}
	return w
}

// verifyChain builds a chain to a CA of the policy and asks its CRLs. It is good
// until the first certificate of it ends, or the first revocation list.
func (p *Peer) verifyChain(w *shown, now time.Time, usage x509.ExtKeyUsage) (until time.Time, err error) {
	for _, v := range w.chains {
		if v.usage == usage && v.by.sameTrust(p) {
			return v.until, v.err
		}
	}
	until, err = p.buildChain(w, now, usage)
	w.chains = append(w.chains, verified{p, usage, until, err})
	return until, err
}

// sameTrust says that two peers take the same certificates.
func (p *Peer) sameTrust(q *Peer) bool {
	return p == q || slices.EqualFunc(p.CAs, q.CAs, (*x509.Certificate).Equal) &&
		slices.EqualFunc(p.CRLs, q.CRLs, func(a, b *x509.RevocationList) bool { return a == b || bytes.Equal(a.Raw, b.Raw) })
}

func (p *Peer) buildChain(w *shown, now time.Time, usage x509.ExtKeyUsage) (until time.Time, err error) {
	leaf := w.leaf()
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage}, MaxConstraintComparisions: maxConstraints,
	}
	for _, ca := range p.CAs {
		o.Roots.AddCert(ca)
	}
	for _, c := range w.certs[1:] {
		o.Intermediates.AddCert(c)
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return until, errors.New("its key usage does not allow signatures (RFC 4945 section 5.1.3.2)")
	}
	chains, err := leaf.Verify(o)
	if err != nil {
		return until, err
	}
	// A revoked certificate spoils the chains it stands in. Of several that are
	// good the one that is so for longest counts.
	var bad error
	for _, chain := range chains {
		end, err := p.revoked(chain, now)
		if err != nil {
			bad = err
			continue
		}
		for _, c := range chain {
			end = sooner(end, c.NotAfter)
		}
		if end.After(until) {
			until = end
		}
	}
	if until.IsZero() {
		return until, bad
	}
	return until, nil
}

// revoked looks every certificate of a chain up in the CRLs of its issuer.
// An issuer without a CRL is not asked; one whose CRLs have all expired
// fails, for a list that no longer speaks may hide a revocation. until is when
// that will be; zero: never.
func (p *Peer) revoked(chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	for i, c := range chain[:len(chain)-1] {
		issuer, stale, fresh := chain[i+1], false, false
		var last time.Time // of the lists of this issuer
		endless := false
		for _, crl := range p.CRLs {
			if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) || crl.CheckSignatureFrom(issuer) != nil {
				continue
			}
			for _, e := range crl.RevokedCertificateEntries {
				if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
					return until, crlError{"revoked on " + e.RevocationTime.Format(time.DateOnly)}
				}
			}
			if !crl.NextUpdate.IsZero() && now.After(crl.NextUpdate) {
				stale = true
			} else {
				fresh = true
				if endless = endless || crl.NextUpdate.IsZero(); crl.NextUpdate.After(last) {
					last = crl.NextUpdate
				}
			}
		}
		if stale && !fresh {
			return until, crlError{fmt.Sprintf("the revocation list of %s has expired", issuer.Subject)}
		}
		if fresh && !endless {
			until = sooner(until, last)
		}
	}
	return until, nil
}
