package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// bundleGateway makes an authority, a gateway that leases addresses of both
// families to callers and tells them a resolver, and one bundle for Ann. It
// gives the folder and the pass phrase that was shown.
func bundleGateway(t *testing.T, l *lab.Lab, gateway *lab.Host, kind string, eap bool) (g *ikeHost, folder, pass string) {
	t.Helper()
	pki(t, l, gateway, "init")
	pki(t, l, gateway, "issue", "vpn.example.org", "--also", "10.77.0.1")
	pki(t, l, gateway, "issue", "ann@example.org")
	folder = filepath.Join(l.Dir, "bundle")
	args, auth := []string{lab.Binary(t), "pki", "bundle", "ann@example.org", "--for", kind, "--gateway", "10.77.0.1", "--gateway-id", "vpn.example.org",
		"--network", "10.1.0.0/16", "--out", folder, "--dir", filepath.Join(l.Dir, "ca")}, ""
	if kind != "openiked" { // it asks for one address
		args = append(args, "--network", "fd01::/64")
	}
	if eap {
		args, auth = append(args, "--eap"), `  remote_auth = "eap-tls"`
	}
	if m := regexp.MustCompile(`shown this once: (\S+)`).FindStringSubmatch(gateway.Run(args...)); m != nil {
		pass = m[1]
	}
	gateway.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
	gateway.Run("ip", "addr", "add", "fd01::1/128", "dev", "lo", "nodad")
	gateway.Run("ip", "route", "add", "default", "via", "10.77.0.2")
	gateway.Run("ip", "-6", "route", "add", "default", "via", "fd77::2")
	return &ikeHost{Host: gateway, name: "gateway", policy: l.File("policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "callers" {
  action         = "protect"
  with           = "callers"
  direction      = "both"
  local_address  = ["10.1.0.0/16", "fd01::/64"]
  remote_address = ["10.99.0.0/24", "fd99::/64"]
}
ipsec "callers" {
  mode = "tunnel"
  ike  = "users"
}
ike "users" {
  pool        = ["10.99.0.0/24", "fd99::/64"]
  dns         = ["10.1.0.53", "fd01::53"]
  local_id    = "vpn.example.org"
  remote_id   = "*@example.org"
  certificate = "ca/vpn.example.org.pem"
  private_key = "ca/vpn.example.org.key"
  ca          = "ca/ca.pem"
  crl         = "ca/ca.crl"
`+auth+`
}
`)}, folder, pass
}

// unlock takes a PKCS #12 file apart by openssl, and gives what openssl says of
// how it is protected. Key and certificates go below a folder of swanctl's.
func unlock(t *testing.T, h *lab.Host, file, pass, swan string) string {
	t.Helper()
	for _, d := range []string{"private", "x509", "x509ca"} {
		if err := os.MkdirAll(filepath.Join(swan, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	open := []string{"openssl", "pkcs12", "-in", file, "-passin", "pass:" + pass, "-legacy"}
	for _, part := range [][]string{{"-nocerts", "-nodes", "-out", swan + "/private/ann.key"}, {"-clcerts", "-nokeys", "-out", swan + "/x509/ann.pem"}, {"-cacerts", "-nokeys", "-out", swan + "/x509ca/ca.pem"}} {
		h.Run(append(open, part...)...)
	}
	return h.Run(append(open, "-info", "-noout")...)
}

// words are strongSwan's for those of Windows and of Apple.
var words = map[string]string{"GCMAES256": "aes256gcm16", "AES-256-GCM": "aes256gcm16", "SHA256": "prfsha256", "SHA2-256": "prfsha256", "ECP256": "ecp256", "19": "ecp256"}

// asCaller has strongSwan call as a system would by its bundle: with its
// proposals and its kind of identity, for addresses of both families and
// resolvers. Pings cross both ways, sealed.
func asCaller(t *testing.T, road *lab.Host, g *ikeHost, swan *lab.Charon, enc, hash, group, local, remote string, resolv string) {
	t.Helper()
	for _, w := range []string{enc, hash, group} {
		if words[w] == "" {
			t.Fatalf("the bundle says %q, for which this test has no word of strongSwan's", w)
		}
	}
	wire := g.Capture("s0", "host 10.77.0.2 or net 10.99.0.0/24 or net fd99::/64")
	g.run(t)
	swan.Load(fmt.Sprintf(`connections {
  ipfw {
    version = 2
    remote_addrs = 10.77.0.1
    vips = 0.0.0.0, ::
    proposals = %s-%s-%s
    local {
      certs = ann.pem
      %s
    }
    remote {
      auth = pubkey
      cacerts = ca.pem
      %s
    }
    children {
      ipfw {
        remote_ts = 0.0.0.0/0, ::/0
        esp_proposals = %s
      }
    }
  }
}
`, words[enc], words[hash], words[group], local, remote, words[enc]))
	swan.Do("--initiate", "--child", "ipfw")
	var who struct {
		RemoteID string   `json:"remote_id"`
		Leased   []string `json:"leased"`
	}
	out := g.daemon.Ask("ike", "list", "--json")
	if err := json.Unmarshal([]byte(out), &who); err != nil || len(who.Leased) != 2 || who.RemoteID != "ann@example.org" {
		t.Fatalf("the gateway says %v %s", err, out)
	}
	for i, inner := range []string{"10.1.0.1", "fd01::1"} {
		road.Run("ping", "-c", "2", "-i", "0.05", "-W", "5", "-I", who.Leased[i], inner)
		g.Run("ping", "-c", "2", "-i", "0.05", "-W", "5", "-I", inner, who.Leased[i])
	}
	text, err := os.ReadFile(resolv)
	if err != nil || !strings.Contains(string(text), "nameserver 10.1.0.53") || !strings.Contains(string(text), "nameserver fd01::53") {
		t.Errorf("the caller's resolvers: %v\n%s", err, text)
	}
	swan.Do("--rekey", "--child", "ipfw")
	g.daemon.Ask("ike", "rekey", "users")
	time.Sleep(300 * time.Millisecond)
	road.Run("ping", "-c", "2", "-i", "0.05", "-W", "5", "-I", who.Leased[0], "10.1.0.1")
	sealed(t, wire)
}

// resolves are lines for strongswan.conf by which charon writes the resolvers
// it is told to a file.
func resolves(l *lab.Lab) (settings, file string) {
	file = filepath.Join(l.Dir, "resolv.conf")
	return fmt.Sprintf("  plugins {\n    resolve {\n      load = yes\n      file = %s\n    }\n  }\n", file), file
}

// psSets are what the parameters of Set-VpnConnectionIPsecConfiguration take,
// as Microsoft documents it; all of them must be there.
var psSets = map[string][]string{
	"-AuthenticationTransformConstants": {"MD596", "SHA196", "SHA256128", "GCMAES128", "GCMAES192", "GCMAES256", "None"},
	"-CipherTransformConstants":         {"DES", "DES3", "AES128", "AES192", "AES256", "GCMAES128", "GCMAES192", "GCMAES256", "None"},
	"-EncryptionMethod":                 {"DES", "DES3", "AES128", "AES192", "AES256", "GCMAES128", "GCMAES256"},
	"-IntegrityCheckMethod":             {"MD5", "SHA1", "SHA256", "SHA384"},
	"-DHGroup":                          {"None", "Group1", "Group2", "Group14", "ECP256", "ECP384", "Group24"},
	"-PfsGroup":                         {"None", "PFS1", "PFS2", "PFS2048", "ECP256", "ECP384", "PFSMM", "PFS24"},
}

// psCommands are the other commands of the script, with the parameters of
// theirs that it may use; a "=" says that a value follows.
var psCommands = map[string][]string{
	"Import-Certificate":     {"-FilePath=", "-CertStoreLocation="},
	"Import-PfxCertificate":  {"-FilePath=", "-CertStoreLocation=", "-Password="},
	"Add-VpnConnection":      {"-Name=", "-ServerAddress=", "-TunnelType=", "-AuthenticationMethod=", "-EapConfigXmlStream=", "-SplitTunneling", "-AllUserConnection"},
	"Add-VpnConnectionRoute": {"-ConnectionName=", "-DestinationPrefix=", "-AllUserConnection"},
	"New-EapConfiguration":   {"-Tls", "-UserCertificate"},
	"Read-Host":              {"-AsSecureString"},
}

// What the bundle for Windows has is what Windows' commands take, and strongSwan
// in its place gets in with it: by machine certificate Windows calls itself by
// the subject, by EAP by its address, and it names no gateway.
func TestWindowsBundle(t *testing.T) {
	for _, eap := range []bool{false, true} {
		t.Run(map[bool]string{false: "certificate", true: "eap"}[eap], func(t *testing.T) {
			l, road, gateway := lab.Pair(t)
			lab.Need(t, "ping", "tcpdump", "openssl")
			g, folder, pass := bundleGateway(t, l, gateway, "windows", eap)
			text, err := os.ReadFile(filepath.Join(folder, "connect.ps1"))
			if err != nil {
				t.Fatal(err)
			}
			said := psCheck(t, string(text))
			for name, set := range psSets {
				if !slices.Contains(set, said[name]) {
					t.Errorf("%s %q: Windows takes one of %q", name, said[name], set)
				}
			}
			if said["-AuthenticationTransformConstants"] != said["-CipherTransformConstants"] || said["-TunnelType"] != "Ikev2" ||
				said["-AuthenticationMethod"] != map[bool]string{false: "MachineCertificate", true: "Eap"}[eap] {
				t.Errorf("%v", said)
			}
			settings, resolv := resolves(l)
			swan := road.Charon(settings)
			// Windows reads AES-256 with HMAC-SHA256 since Windows 10 1709.
			if info := unlock(t, road, filepath.Join(folder, "ann@example.org.p12"), pass, swan.Dir); !strings.Contains(info, "PBES2, PBKDF2, AES-256-CBC") || !strings.Contains(info, "MAC: sha256") {
				t.Errorf("PKCS #12: %s", info)
			}
			local := `auth = pubkey
      id = "CN=ann@example.org"`
			if eap {
				local = "auth = eap-tls\n      id = 10.77.0.2\n      eap_id = ann@example.org"
			}
			asCaller(t, road, g, swan, said["-EncryptionMethod"], said["-IntegrityCheckMethod"], said["-DHGroup"], local, "id = %any", resolv)
		})
	}
}

// psCheck reads the script's lines: every command and parameter must be one
// that is known, and every value one word. It gives the values.
func psCheck(t *testing.T, text string) map[string]string {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(line, "quoted"))
		if len(f) > 2 && f[1] == "=" && strings.HasPrefix(f[0], "$") {
			f = f[2:]
		}
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		known := psCommands[f[0]]
		if f[0] == "Set-VpnConnectionIPsecConfiguration" {
			known = []string{"-ConnectionName=", "-AllUserConnection", "-Force"}
			for name := range psSets {
				known = append(known, name+"=")
			}
		}
		if known == nil {
			t.Errorf("a command that this test does not know: %s", line)
		}
		for f = f[1:]; len(f) > 0; f = f[1:] {
			switch {
			case slices.Contains(known, f[0]), f[0] == "quoted":
			case slices.Contains(known, f[0]+"=") && len(f) > 1 && !strings.HasPrefix(f[1], "-"):
				said[f[0]], f = f[1], f[1:]
			default:
				t.Errorf("%q has no place in %s", f[0], line)
			}
		}
	}
	return said
}

// plistJSON has Python read a property list; data becomes text in base64.
const plistJSON = `import plistlib,json,sys,base64
print(json.dumps(plistlib.load(open(sys.argv[1],"rb"),fmt=plistlib.FMT_XML),default=lambda b:base64.b64encode(b).decode()))`

// appleSets are what keys of Apple's IKEv2 dictionary take, as Apple's schema of
// com.apple.vpn.managed has it; the empty set is any text that is not empty.
var appleSets = map[string][]string{
	"RemoteAddress": nil, "LocalIdentifier": nil, "RemoteIdentifier": nil, "ServerCertificateIssuerCommonName": nil, "PayloadCertificateUUID": nil,
	"AuthenticationMethod": {"None", "SharedSecret", "Certificate"}, "CertificateType": {"RSA", "ECDSA256", "ECDSA384", "ECDSA521", "RSA-PSS"},
	"ExtendedAuthEnabled": {"0", "1"}, "EnablePFS": {"0", "1"},
	"AllowPostQuantumKeyExchangeFallback": {"1"}, // 0 would keep it from gateways without
}

var appleSuite = map[string][]string{
	"EncryptionAlgorithm": {"DES", "3DES", "AES-128", "AES-256", "AES-128-GCM", "AES-256-GCM", "ChaCha20Poly1305"},
	"IntegrityAlgorithm":  {"SHA1-96", "SHA1-160", "SHA2-256", "SHA2-384", "SHA2-512"},
	// Up to seven of "none", ML-KEM-768 and ML-KEM-1024, by their transform IDs
	// (NEVPNIKEv2PostQuantumKeyExchangeMethod, from version 26 on).
	"PostQuantumKeyExchangeMethods": {"[36]"},
	"DiffieHellmanGroup":            {"1", "2", "5", "14", "15", "16", "17", "18", "19", "20", "21", "31", "32"},
}

// The bundle for Apple's systems is a property list with all that its schema
// asks for, and strongSwan in their place gets in with it: by the identities of
// the bundle.
func TestAppleBundle(t *testing.T) {
	for _, eap := range []bool{false, true} {
		t.Run(map[bool]string{false: "certificate", true: "eap"}[eap], func(t *testing.T) {
			l, road, gateway := lab.Pair(t)
			lab.Need(t, "ping", "tcpdump", "openssl", "python3")
			g, folder, pass := bundleGateway(t, l, gateway, "apple", eap)
			var list struct {
				PayloadContent []map[string]any
			}
			if err := json.Unmarshal([]byte(road.Run("python3", "-c", plistJSON, filepath.Join(folder, "ann@example.org.mobileconfig"))), &list); err != nil {
				t.Fatal(err)
			}
			by := map[string]map[string]any{}
			for _, p := range list.PayloadContent {
				for _, k := range []string{"PayloadType", "PayloadIdentifier", "PayloadUUID"} {
					if s, _ := p[k].(string); s == "" {
						t.Errorf("a payload without %s: %v", k, p)
					}
				}
				by[fmt.Sprint(p["PayloadType"])] = p
			}
			vpn, _ := by["com.apple.vpn.managed"]["IKEv2"].(map[string]any)
			if by["com.apple.vpn.managed"]["VPNType"] != "IKEv2" || vpn == nil {
				t.Fatalf("no IKEv2: %v", list)
			}
			fits := func(d map[string]any, sets map[string][]string, must ...string) {
				for k, v := range d {
					s, text := fmt.Sprint(v), ""
					if set, ok := sets[k]; ok && (set == nil && s == text || set != nil && !slices.Contains(set, s)) {
						t.Errorf("%s is %q", k, s)
					} else if !ok && !strings.HasSuffix(k, "SecurityAssociationParameters") {
						t.Errorf("%s is not known", k)
					}
				}
				for _, k := range must {
					if d[k] == nil {
						t.Errorf("%s is missing", k)
					}
				}
			}
			fits(vpn, appleSets, "RemoteAddress", "LocalIdentifier", "RemoteIdentifier", "AuthenticationMethod", "CertificateType", "ServerCertificateIssuerCommonName", "PayloadCertificateUUID")
			suite := map[string]any{}
			for _, k := range []string{"ChildSecurityAssociationParameters", "IKESecurityAssociationParameters"} {
				suite, _ = vpn[k].(map[string]any)
				fits(suite, appleSuite, "EncryptionAlgorithm", "IntegrityAlgorithm", "DiffieHellmanGroup")
			}
			if vpn["PayloadCertificateUUID"] != by["com.apple.security.pkcs12"]["PayloadUUID"] || fmt.Sprint(vpn["ExtendedAuthEnabled"]) == "1" != eap {
				t.Errorf("%v", vpn)
			}
			settings, resolv := resolves(l)
			swan := road.Charon(settings)
			p12 := filepath.Join(l.Dir, "ann.p12")
			b64, _ := by["com.apple.security.pkcs12"]["PayloadContent"].(string)
			l.File("ann.b64", b64)
			road.Run("sh", "-c", "base64 -d "+filepath.Join(l.Dir, "ann.b64")+" >"+p12)
			// Apple's systems read 3DES with HMAC-SHA1 only.
			if info := unlock(t, road, p12, pass, swan.Dir); !strings.Contains(info, "pbeWithSHA1And3-KeyTripleDES-CBC") || !strings.Contains(info, "MAC: sha1") {
				t.Errorf("PKCS #12: %s", info)
			}
			issuer := road.Run("openssl", "x509", "-in", swan.Dir+"/x509ca/ca.pem", "-noout", "-subject", "-nameopt", "sep_multiline")
			if !strings.Contains(issuer, fmt.Sprintf("CN=%s\n", vpn["ServerCertificateIssuerCommonName"])) {
				t.Errorf("the issuer is %v, the authority %s", vpn["ServerCertificateIssuerCommonName"], issuer)
			}
			local := fmt.Sprintf("auth = %s\n      id = %s", map[bool]string{false: "pubkey", true: "eap-tls"}[eap], vpn["LocalIdentifier"])
			asCaller(t, road, g, swan, fmt.Sprint(suite["EncryptionAlgorithm"]), fmt.Sprint(suite["IntegrityAlgorithm"]), fmt.Sprint(suite["DiffieHellmanGroup"]),
				local, fmt.Sprintf("id = %s", vpn["RemoteIdentifier"]), resolv)
		})
	}
}

// The bundle for OpenIKED goes to /etc as it says, and iked calls by it, gets an
// address, puts it on the interface, and reaches what is behind the gateway.
func TestOpenIKEDBundle(t *testing.T) {
	l := lab.New(t)
	lab.Need(t, "ping", "tcpdump")
	guest, gateway := l.Guest("guest"), l.Host("gateway")
	guest.Join(gateway, "s0", []string{"10.77.0.1/24", "fd77::1/64"}, []string{"10.77.0.2/24", "fd77::2/64"})
	g, folder, _ := bundleGateway(t, l, gateway, "openiked", false)
	wire := g.Capture("s0", "host 10.77.0.2 or net 10.99.0.0/24")
	g.run(t)
	guest.Run("sh", "-c", "modprobe -d "+filepath.Join(l.Dir, "guest")+" dummy numdummies=0; ip link add lo1 type dummy; ip link set lo1 up; ip route add default via 10.77.0.1")
	d := guest.IKEDFolder(lab.IKEDNew, folder)
	defer func() {
		if t.Failed() {
			t.Logf("%s\n%s\n%s\n%s", d.Log(), d.States(), guest.Run("ip", "xfrm", "policy"), guest.Run("ip", "addr"))
		}
	}()
	l.Eventually(waitLong, "the address", func() bool { return strings.Contains(guest.Run("ip", "addr", "show", "dev", "lo1"), "inet 10.99.0.2/") })
	guest.Run("ping", "-c", "3", "-i", "0.1", "-W", "5", "-I", "10.99.0.2", "10.1.0.1")
	g.Run("ping", "-c", "3", "-i", "0.1", "-W", "5", "-I", "10.1.0.1", "10.99.0.2")
	g.daemon.Ask("ike", "rekey", "users")
	time.Sleep(300 * time.Millisecond)
	guest.Run("ping", "-c", "3", "-i", "0.1", "-W", "5", "-I", "10.99.0.2", "10.1.0.1")
	if out := g.daemon.Ask("ike", "list", "--json"); !strings.Contains(out, `"remote_id":"ann@example.org"`) {
		t.Errorf("the gateway says %s", out)
	}
	sealed(t, wire)
}
