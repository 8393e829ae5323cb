package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The folders that keys go to unless told otherwise.
const (
	keyDir = "/etc/ipfw"
	pkiDir = "/etc/ipfw/pki"
)

func newPKICmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "pki",
		Short: "Make keys and certificates for IKE",
		Long: `Make what peers prove themselves by. Two ways:

Raw public keys, one for each host and no authority: "ipfw pki key NAME" on
each; the public halves go to the others, as peers/NAME.pub. The policy says

    private_key = "NAME.key"
    public_keys = "peers/"
    local_id    = "NAME"

Certificates, for many hosts, and for peers that know nothing else: "ipfw pki
init" makes an authority on one machine, "ipfw pki issue NAME" certificates, and
"ipfw pki bundle NAME --for ..." what another system takes in. The policy says

    certificate = "NAME.pem"
    private_key = "NAME.key"
    ca          = "ca.pem"
    crl         = "ca.crl"

The list of revocations, ca.crl, holds for 90 days unless told otherwise. When
it has expired, nobody's certificate counts any more: "ipfw pki crl" makes it
anew in time, and every host needs the new one.

Whoever has ca.key can be anybody: keep it where nobody gets at it.`,
	}
	c.AddCommand(newPKIKeyCmd(a), newPKIInitCmd(a), newPKIIssueCmd(a), newPKIRevokeCmd(a), newPKICRLCmd(a), newPKIBundleCmd(a))
	return c
}

func newPKIKeyCmd(a *app) *cobra.Command {
	dir, kind := keyDir, "ed25519"
	c := &cobra.Command{
		Use:   "key NAME",
		Short: "Make a raw key pair for this host, and print the public half",
		Long: `Make a raw key pair for this host: DIR/NAME.key, which stays here, and
DIR/NAME.pub, which is printed too, for the peers:

    ipfw pki key alpha | ssh root@beta 'cat > /etc/ipfw/peers/alpha.pub'

NAME is what this host is called in local_id, a host name as a rule.`,
		Args: wants(1, 1, "the NAME of this host, as its local_id has it"),
		RunE: func(_ *cobra.Command, args []string) error {
			public, err := rawKey(dir, args[0], kind)
			if err != nil {
				return err
			}
			a.printf("%s", public)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", dir, "where the key goes")
	kindFlag(c, &kind)
	return c
}

func kindFlag(c *cobra.Command, kind *string) {
	c.Flags().StringVar(kind, "type", *kind, "the kind of key: "+strings.Join(keyKinds, ", "))
	c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(keyKinds, cobra.ShellCompDirectiveNoFileComp))
}

func pkiFlag(c *cobra.Command, dir *string) {
	*dir = pkiDir
	c.Flags().StringVar(dir, "dir", pkiDir, "the folder of the authority")
}

// crlFlag is how long the list of revocations holds.
func crlFlag(c *cobra.Command, days *int) {
	c.Flags().IntVar(days, "crl-days", crlDays, "how many days the list of revocations holds")
}

// authority is the folder with the flags of a command that writes the list.
func (a *app) authority(dir string, days int) (pki, error) {
	if days < 1 || days > caYears*366 {
		return pki{}, usagef("--crl-days is a number of days from 1 to %d", caYears*366)
	}
	return pki{dir, a.now(), days}, nil
}

func newPKICRLCmd(a *app) *cobra.Command {
	var dir string
	var days int
	c := &cobra.Command{
		Use:   "crl",
		Short: "Make the list of revocations anew before it expires",
		Long: `Make the authority's list of revocations, ca.crl, anew: with what is on it, and
for another --crl-days. Copy it to every host before the old one expires, and
"ipfw reload" there: with an expired list nobody's certificate counts.`,
		Example: `  ipfw pki crl && scp /etc/ipfw/pki/ca.crl root@gw:/etc/ipfw/pki/ && ssh root@gw ipfw reload`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := a.authority(dir, days)
			if err != nil {
				return err
			}
			until, err := p.renew()
			if err != nil {
				return err
			}
			a.printf("%s holds until %s: copy it to every host, and `ipfw reload` there\n", p.path("ca.crl"), until.UTC().Format(time.DateOnly))
			return nil
		},
	}
	pkiFlag(c, &dir)
	crlFlag(c, &days)
	return c
}

func newPKIInitCmd(a *app) *cobra.Command {
	var dir string
	var days int
	name := "ipfw CA"
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a certificate authority",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := a.authority(dir, days)
			if err != nil {
				return err
			}
			if err := p.init(name); err != nil {
				return err
			}
			a.printf("%s, for %d years. Each host needs %s and %s; %s stays here.\n",
				p.path("ca.pem"), caYears, "ca.pem", "ca.crl", "ca.key")
			a.printf("ca.crl holds for %d days: `ipfw pki crl` makes it anew in time.\n", days)
			return nil
		},
	}
	pkiFlag(c, &dir)
	crlFlag(c, &days)
	c.Flags().StringVar(&name, "name", name, "what the authority is called")
	return c
}

func newPKIIssueCmd(a *app) *cobra.Command {
	var dir string
	var also []string
	kind := "ecdsa"
	c := &cobra.Command{
		Use:   "issue NAME",
		Short: "Make a key and a certificate for a host or a person",
		Long: `Make a key and a certificate. NAME is a host name, a mail address or an IP
address, and the identity that the holder proves; --also gives it others.`,
		Args: wants(1, 1, "the NAME of the holder: a host name, a mail address or an IP address"),
		RunE: func(_ *cobra.Command, args []string) error {
			p := pki{dir: dir, now: a.now()}
			if err := p.issue(args[0], kind, also); err != nil {
				return err
			}
			a.printf("%s and %s, for %d days\n", p.path(args[0]+".pem"), p.path(args[0]+".key"), leafDays)
			return nil
		},
	}
	pkiFlag(c, &dir)
	kindFlag(c, &kind)
	c.Flags().StringSliceVar(&also, "also", nil, "another name of the holder: host name, mail address, IP address")
	return c
}

func newPKIRevokeCmd(a *app) *cobra.Command {
	var dir string
	var days int
	c := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Let a certificate count no more",
		Long: `Put a certificate on the authority's list of revocations, ca.crl. It counts no
more wherever the new list is, after "ipfw reload" there.`,
		Args: wants(1, 1, "the NAME of the certificate that is to count no more"),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := a.authority(dir, days)
			if err != nil {
				return err
			}
			if err := p.revoke(args[0]); err != nil {
				return err
			}
			a.printf("%s is on the list: copy %s to every host, and `ipfw reload` there\n", args[0], p.path("ca.crl"))
			return nil
		},
	}
	pkiFlag(c, &dir)
	crlFlag(c, &days)
	return c
}

func newPKIBundleCmd(a *app) *cobra.Command {
	var dir, out string
	b := bundle{}
	c := &cobra.Command{
		Use:   "bundle NAME --for SYSTEM --gateway HOST",
		Short: "Put together what another system needs to connect: " + strings.Join(bundleKinds(), ", "),
		Long: `Put together what another system needs to connect as NAME, in a folder of its
own: key, certificate and authority in the form it takes, and a configuration.
What is protected by a pass phrase says so; it is printed once and stored nowhere.`,
		Args: wants(1, 1, "the NAME of the certificate"),
		RunE: func(_ *cobra.Command, args []string) error {
			b.Name = args[0]
			if out == "" {
				out = fmt.Sprintf("%s-%s", b.Name, b.For)
			}
			return a.bundle(pki{dir: dir, now: a.now()}, &b, out)
		},
	}
	pkiFlag(c, &dir)
	c.Flags().StringVar(&out, "out", "", "the folder to make; default NAME-SYSTEM")
	c.Flags().StringVar(&b.For, "for", "", "the system: "+strings.Join(bundleKinds(), ", "))
	c.Flags().StringVar(&b.Gateway, "gateway", "", "host name or address of the ipfw host to connect to")
	c.Flags().StringVar(&b.GatewayID, "gateway-id", "", "what that host calls itself (its local_id); default the same")
	c.Flags().StringSliceVar(&b.Networks, "network", nil, "what lies behind the gateway, in CIDR form; default everything")
	c.Flags().BoolVar(&b.EAP, "eap", false, `prove it by EAP-TLS, for a gateway whose ike block says remote_auth = "eap-tls"`)
	c.MarkFlagRequired("for")
	c.MarkFlagRequired("gateway")
	c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(bundleKinds(), cobra.ShellCompDirectiveNoFileComp))
	return c
}
