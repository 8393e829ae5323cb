package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// Check says for what a daemon would refuse a policy that rules.Load takes: it is
// made to be rules.LoadOptions.Check, so that a dry run and a daemon say the
// same. It reads no file.
func Check(p *rules.Policy) []rules.Refusal { return check(p, false) }

// CheckAll is Check with the files that the policy names, as far as they are
// there: a file that is missing is told of by rules.Load.
func CheckAll(p *rules.Policy) []rules.Refusal { return check(p, true) }

func check(p *rules.Policy, files bool) (list []rules.Refusal) {
	refuse := func(kind, name, arg string, err error) {
		r := rules.Refusal{Kind: kind, Name: name, Argument: arg, Text: err.Error()}
		if errors.Is(err, fs.ErrPermission) {
			r.Warning, r.Summary = true, "File not checked"
			r.Text += ": run as root to check it"
		}
		list = append(list, r)
	}
	if err := kernelConfig(&loaded{Policy: p}, runtime.GOMAXPROCS(0), nil).Check(); err != nil {
		refuse("policy", "", "queues", err)
	}
	for i := range p.IKE {
		k := &p.IKE[i]
		if k.LocalID != "" {
			if err := ike.CheckIdentity(k.LocalID); err != nil {
				refuse("ike", k.Name, "local_id", err)
			}
		}
		if err := ike.CheckPattern(k.RemoteID); err != nil {
			refuse("ike", k.Name, "remote_id", err)
		}
		x, err := termsOf(p, k)
		if m := (*misfit)(nil); errors.As(err, &m) {
			refuse(m.kind, m.name, m.arg, m.err)
		} else if err != nil {
			refuse("ike", k.Name, "", err)
		}
		if err != nil || x == nil || !files || !allThere(k) {
			continue
		}
		if err := readProof(k, x); err != nil {
			var m *misfit
			errors.As(err, &m)
			refuse(m.kind, m.name, m.arg, m.err)
			continue
		}
		for _, err := range x.Faults() {
			refuse("ike", k.Name, faulty(err), err)
		}
		ending(validitiesOf(k, x), time.Now(), func(v *validity, summary, text string) {
			list = append(list, rules.Refusal{Kind: "ike", Name: k.Name, Argument: v.arg, Text: text, Warning: true, Summary: summary})
		})
	}
	if files {
		checkManual(p, refuse)
	}
	return list
}

// faulty gives the argument of an ike block that an error is about, "" if it is none.
func faulty(err error) string {
	if f := (*ike.Fault)(nil); errors.As(err, &f) {
		return f.Argument
	}
	return ""
}

// allThere says whether all files of an ike block are there.
func allThere(k *rules.IKE) bool {
	for _, path := range []string{k.Certificate, k.PrivateKey, k.CA, k.CRL, k.PublicKeys, k.PSKFile, k.PPKFile} {
		if _, err := os.Stat(path); path != "" && err != nil {
			return false
		}
	}
	return true
}

// checkManual makes the SAs that have their keys by hand, as the keeper does.
func checkManual(p *rules.Policy, refuse func(kind, name, arg string, err error)) {
	sad := esp.NewSAD()
	for i := range p.IPsec {
		s := &p.IPsec[i]
		if s.Manual == nil {
			continue
		}
		in, out, err := s.ManualSAs()
		if err != nil {
			continue // rules.Load reads the file too, and says it
		}
		for _, c := range []esp.Config{in, out} {
			if c.Direction == esp.Out && !c.Src.IsValid() {
				c.Src = unspecified(c.Dst)
			}
			sa, err := esp.New(c)
			if err == nil {
				err = sad.Insert(sa)
				defer sa.Close()
			}
			c.EncryptionKey.Wipe()
			c.IntegrityKey.Wipe()
			if err != nil {
				refuse("ipsec", s.Name, "manual", err)
				break
			}
		}
	}
}

// misfit is what is wrong with a block, and where.
type misfit struct {
	kind, name, arg string
	place           string
	err             error
}

func (m *misfit) Error() string {
	s := fmt.Sprintf("%s: %s %q: ", m.place, m.kind, m.name)
	if strings.HasSuffix(m.arg, "_id") { // files say which they are
		s += m.arg + ": "
	}
	return s + m.err.Error()
}

func (m *misfit) Unwrap() error { return m.err }
