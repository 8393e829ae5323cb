package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"software.sslmate.com/src/go-pkcs12"
)

// bundle is what another system needs to connect.
type bundle struct {
	Name, For          string
	Gateway, GatewayID string
	Networks           []string
	EAP                bool // prove it by EAP-TLS

	// For the templates.
	Cert, Key, CA string // PEM
	CRL           string // the same, of the authority; empty: it has none
	Issuer        string // the name of the authority
	P12, CA64     string // base64
	Pass          string
	UUIDs         []string
}

// bundleFile is a file of a bundle, made of a template.
type bundleFile struct {
	path string // may name fields of the bundle
	mode fs.FileMode
	text string
}

// bundleSystems are what goes into the bundle of each system.
var bundleSystems = map[string][]bundleFile{
	"strongswan": {
		{"x509ca/ca.pem", 0o644, "{{.CA}}"},
		{"x509/{{.Name}}.pem", 0o644, "{{.Cert}}"},
		{"private/{{.Name}}.key", 0o600, "{{.Key}}"},
		{"conf.d/ipfw.conf", 0o644, `# Copy this folder to /etc/swanctl, then: swanctl --load-all; swanctl --initiate --child ipfw
connections {
  ipfw {
    version = 2
    remote_addrs = {{.Gateway}}
    vips = 0.0.0.0, ::
    proposals = aes256gcm16-prfsha256-x25519, aes256gcm16-prfsha256-ecp256
    local {
      auth = {{if .EAP}}eap-tls{{else}}pubkey{{end}}
      certs = {{.Name}}.pem
      id = {{.Name}}
    }
    remote {
      auth = pubkey
      id = {{.GatewayID}}
    }
    children {
      ipfw {
        remote_ts = {{join .Networks ", "}}
        esp_proposals = aes256gcm16
      }
    }
  }
}
`},
	},
	"ipfw": {
		{"ca.pem", 0o644, "{{.CA}}"},
		{"ca.crl", 0o644, "{{.CRL}}"},
		{"{{.Name}}.pem", 0o644, "{{.Cert}}"},
		{"{{.Name}}.key", 0o600, "{{.Key}}"},
		{"ipfw.hcl", 0o644, `# {{.Name}}, behind {{.GatewayID}}: copy what is in this folder to /etc/ipfw, then
# ipfw validate /etc/ipfw/ipfw.hcl; ipfw run --confirm 60s. The revocation list ends
# after a while: take a new one from where the certificates are made.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

# Over ssh: uncomment this, or you are cut off.
# rule "ssh" {
#   action     = "bypass"
#   direction  = "in"
#   protocol   = "tcp"
#   local_port = 22
# }

rule "gateway" {
  action         = "protect"
  with           = "gateway"
  direction      = "out" # "both": what is behind the gateway may open to this host as well
  remote_address = [{{range $i, $n := .Networks}}{{if $i}}, {{end}}"{{$n}}"{{end}}]
}

ipsec "gateway" {
  mode = "tunnel"
  ike  = "gateway"
}

ike "gateway" {
  remote_endpoint = "{{.Gateway}}"
  local_id        = "{{.Name}}"
  remote_id       = "{{.GatewayID}}"
  certificate     = "{{.Name}}.pem"
  private_key     = "{{.Name}}.key"
  ca              = "ca.pem"
{{- if .CRL}}
  crl             = "ca.crl"
{{- end}}
  request_address = true
  initiate        = "start" # so that programs find the address when they begin
}
`},
	},
	"openiked": {
		{"iked/ca/ca.crt", 0o644, "{{.CA}}"},
		{"iked/certs/{{.Name}}.crt", 0o644, "{{.Cert}}"},
		{"iked/private/local.key", 0o600, "{{.Key}}"},
		{"iked.conf", 0o600, `# Copy what is in this folder to /etc: iked.conf, and iked/. Make an interface
# for the address and the routes: "ifconfig lo1 create" on OpenBSD, "ip link add
# lo1 type dummy; ip link set lo1 up" on Linux. Then start iked.
ikev2 "ipfw" active esp \
	{{range .Networks}}from dynamic to {{.}} \
	{{end}}peer {{.Gateway}} \
	srcid {{.Name}} dstid {{.GatewayID}} \
	request address any iface lo1
`},
	},
	"windows": {
		{"{{.Name}}.p12", 0o600, ""},
		{"ca.cer", 0o644, "{{.CA}}"},
		{"connect.ps1", 0o644, `# Run in this folder, as administrator. It asks for the pass phrase of {{.Name}}.p12.
$pass = Read-Host -AsSecureString "Pass phrase"
Import-Certificate -FilePath ca.cer -CertStoreLocation Cert:\LocalMachine\Root
{{if .EAP}}Import-PfxCertificate -FilePath {{.Name}}.p12 -CertStoreLocation Cert:\CurrentUser\My -Password $pass
$eap = New-EapConfiguration -Tls -UserCertificate
Add-VpnConnection -Name ipfw -ServerAddress {{.Gateway}} -TunnelType Ikev2 -AuthenticationMethod Eap -EapConfigXmlStream $eap.EapConfigXmlStream -SplitTunneling -AllUserConnection
{{else}}Import-PfxCertificate -FilePath {{.Name}}.p12 -CertStoreLocation Cert:\LocalMachine\My -Password $pass
Add-VpnConnection -Name ipfw -ServerAddress {{.Gateway}} -TunnelType Ikev2 -AuthenticationMethod MachineCertificate -SplitTunneling -AllUserConnection
{{end -}}
Set-VpnConnectionIPsecConfiguration -ConnectionName ipfw -AuthenticationTransformConstants GCMAES256 -CipherTransformConstants GCMAES256 -EncryptionMethod GCMAES256 -IntegrityCheckMethod SHA256 -DHGroup ECP256 -PfsGroup None -AllUserConnection -Force
{{range .Networks}}Add-VpnConnectionRoute -ConnectionName ipfw -DestinationPrefix {{.}} -AllUserConnection
{{end}}`},
	},
	"apple": {
		{"{{.Name}}.mobileconfig", 0o600, `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>PayloadType</key><string>Configuration</string>
	<key>PayloadVersion</key><integer>1</integer>
	<key>PayloadIdentifier</key><string>ipfw.{{xml .GatewayID}}</string>
	<key>PayloadUUID</key><string>{{index .UUIDs 0}}</string>
	<key>PayloadDisplayName</key><string>ipfw {{xml .GatewayID}}</string>
	<key>PayloadContent</key>
	<array>
		<dict>
			<key>PayloadType</key><string>com.apple.security.root</string>
			<key>PayloadVersion</key><integer>1</integer>
			<key>PayloadIdentifier</key><string>ipfw.ca</string>
			<key>PayloadUUID</key><string>{{index .UUIDs 1}}</string>
			<key>PayloadContent</key><data>{{.CA64}}</data>
		</dict>
		<dict>
			<key>PayloadType</key><string>com.apple.security.pkcs12</string>
			<key>PayloadVersion</key><integer>1</integer>
			<key>PayloadIdentifier</key><string>ipfw.key</string>
			<key>PayloadUUID</key><string>{{index .UUIDs 2}}</string>
			<key>PayloadContent</key><data>{{.P12}}</data>
		</dict>
		<dict>
			<key>PayloadType</key><string>com.apple.vpn.managed</string>
			<key>PayloadVersion</key><integer>1</integer>
			<key>PayloadIdentifier</key><string>ipfw.vpn</string>
			<key>PayloadUUID</key><string>{{index .UUIDs 3}}</string>
			<key>UserDefinedName</key><string>ipfw</string>
			<key>VPNType</key><string>IKEv2</string>
			<key>IKEv2</key>
			<dict>
				<key>RemoteAddress</key><string>{{xml .Gateway}}</string>
				<key>RemoteIdentifier</key><string>{{xml .GatewayID}}</string>
				<key>LocalIdentifier</key><string>{{xml .Name}}</string>
				<key>AuthenticationMethod</key><string>{{if .EAP}}None{{else}}Certificate{{end}}</string>
{{- if .EAP}}
				<key>ExtendedAuthEnabled</key><integer>1</integer>
{{- end}}
				<key>CertificateType</key><string>ECDSA256</string>
				<key>PayloadCertificateUUID</key><string>{{index .UUIDs 2}}</string>
				<key>ServerCertificateIssuerCommonName</key><string>{{xml .Issuer}}</string>
				<key>EnablePFS</key><integer>0</integer>
				<key>AllowPostQuantumKeyExchangeFallback</key><integer>1</integer>
				<key>IKESecurityAssociationParameters</key>
				<dict>
					<key>EncryptionAlgorithm</key><string>AES-256-GCM</string>
					<key>IntegrityAlgorithm</key><string>SHA2-256</string>
					<key>DiffieHellmanGroup</key><integer>19</integer>
					<key>PostQuantumKeyExchangeMethods</key><array><integer>36</integer></array>
				</dict>
				<key>ChildSecurityAssociationParameters</key>
				<dict>
					<key>EncryptionAlgorithm</key><string>AES-256-GCM</string>
					<key>IntegrityAlgorithm</key><string>SHA2-256</string>
					<key>DiffieHellmanGroup</key><integer>19</integer>
				</dict>
			</dict>
		</dict>
	</array>
</dict>
</plist>
`},
	},
}

func bundleKinds() []string { return slices.Sorted(maps.Keys(bundleSystems)) }

// bundle writes the folder of a bundle.
func (a *app) bundle(p pki, b *bundle, out string) error {
	files, ok := bundleSystems[b.For]
	if !ok {
		return usagef("there is no bundle for %q: it is one of %s", b.For, strings.Join(bundleKinds(), ", "))
	}
	if b.EAP && b.For == "openiked" {
		return usagef("OpenIKED has no EAP-TLS: leave --eap out, and remote_auth in the policy")
	}
	if b.EAP && b.For == "ipfw" {
		return usagef("ipfw takes EAP-TLS from callers, and does not call by it: leave --eap out, and remote_auth in the policy")
	}
	if err := checkName(b.Name); err != nil {
		return err
	}
	for _, name := range []*string{&b.Gateway, &b.GatewayID} {
		if *name == "" {
			*name = b.Gateway
		}
		if err := checkName(*name); err != nil {
			return err
		}
	}
	for _, n := range b.Networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			return usagef("--network %q is not a network in CIDR form", n)
		}
	}
	if len(b.Networks) == 0 {
		b.Networks = []string{"0.0.0.0/0", "::/0"}
	}
	p12, err := b.fill(p)
	if err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already: remove it, or name another folder with --out", out)
		}
		return err
	}
	for _, f := range files {
		name, err := b.expand(f.path)
		if err != nil {
			return err
		}
		text, err := b.expand(f.text)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".p12") {
			text = string(p12)
		}
		if text == "" {
			continue
		}
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), f.mode); err != nil {
			return err
		}
	}
	a.printf("%s holds a secret key: hand it over by a safe way, and remove it here.\n", out)
	if b.For == "windows" || b.For == "apple" {
		a.printf("The pass phrase of the key, shown this once: %s\n", b.Pass)
	}
	return nil
}

// fill reads key and certificates, and gives the key in PKCS #12. The form that
// Apple's systems read encrypts weakly, so that all its safety is in the pass
// phrase, which is as strong as a key.
func (b *bundle) fill(p pki) ([]byte, error) {
	ca, _, err := p.ca()
	if err != nil {
		return nil, err
	}
	cert, key, err := p.pair(b.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no certificate for %s: `ipfw pki issue %s` makes one", p.dir, b.Name, b.Name)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	b.Cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	b.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
	b.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if crl, err := os.ReadFile(p.path("ca.crl")); err == nil {
		b.CRL = string(crl)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	b.Issuer = ca.Subject.CommonName
	b.CA64 = base64.StdEncoding.EncodeToString(ca.Raw)
	b.Pass = rand.Text()
	for range 4 {
		var u [16]byte
		_, _ = rand.Read(u[:]) // never fails: crypto/rand
		u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
		b.UUIDs = append(b.UUIDs, fmt.Sprintf("%X-%X-%X-%X-%X", u[:4], u[4:6], u[6:8], u[8:10], u[10:]))
	}
	form := pkcs12.Modern2023
	if b.For == "apple" {
		form = pkcs12.LegacyDES
	}
	if b.For != "apple" && b.For != "windows" {
		return nil, nil
	}
	if _, ok := key.(*ecdsa.PrivateKey); !ok {
		return nil, fmt.Errorf("the key of %s is one that neither Windows nor Apple's systems take: `ipfw pki issue NAME --type ecdsa` makes one that they do", b.Name)
	}
	p12, err := form.Encode(key, cert, []*x509.Certificate{ca}, b.Pass)
	b.P12 = base64.StdEncoding.EncodeToString(p12)
	return p12, err
}

// expand fills a template in.
func (b *bundle) expand(text string) (string, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"join": strings.Join,
		"xml": func(s string) string {
			var out bytes.Buffer
			_ = xml.EscapeText(&out, []byte(s)) // a buffer takes everything
			return out.String()
		},
	}).Parse(text)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = t.Execute(&out, b)
	return out.String(), err
}
