package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// lendingGateway is a host that lends addresses of 10.5.0.0/24 and has 10.1.0.1 behind it.
func lendingGateway(t *testing.T, l *lab.Lab, h *lab.Host, via string) *ikeHost {
	l.File("psk", alwaysSecret+"\n")
	h.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
	h.Run("ip", "route", "add", "default", "via", via) // as a gateway has: the pool needs some route
	g := &ikeHost{Host: h, name: "gateway", policy: l.File("policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "callers" {
  action         = "protect"
  with           = "callers"
  direction      = "both"
  local_address  = "10.1.0.0/24"
  remote_address = "10.5.0.0/24"
}
ipsec "callers" {
  mode = "tunnel"
  ike  = "users"
}
ike "users" {
  pool      = "10.5.0.0/24"
  local_id  = "gateway.example"
  remote_id = "*.example"
  psk_file  = "psk"
}
`)}
	g.run(t)
	return g
}

// device is strongSwan's configuration of one that gets an address.
func device(here, gateway, more string) string {
	return `connections {
  gw {
    version = 2
    local_addrs = ` + here + `
    remote_addrs = ` + gateway + `
    vips = 0.0.0.0
    ` + more + `
    local {
      auth = psk
      id = ann.example
    }
    remote {
      auth = psk
      id = gateway.example
    }
    children {
      net {
        remote_ts = 10.1.0.0/24
      }
    }
  }
}
secrets {
  ike-gw {
    secret = "` + alwaysSecret + `"
  }
}
`
}

var inPool = regexp.MustCompile(`10\.5\.0\.\d+`)

// Two devices of one person, with one identity and one key, and without INITIAL_CONTACT,
// have an address each, and each gets the answers to what it has sent.
func TestStrongSwanTwoDevicesOneIdentity(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lab.Need(t, "ping")
	gateway := l.Host("gateway")
	var devices []*lab.Host
	for i, name := range []string{"laptop", "phone"} {
		h := l.Host(name)
		l.Join(h, "d0", []string{fmt.Sprintf("10.77.%d.2/24", i)}, gateway, fmt.Sprint("g", i), []string{fmt.Sprintf("10.77.%d.1/24", i)})
		devices = append(devices, h)
	}
	g := lendingGateway(t, l, gateway, "10.77.0.2")
	var lent []string
	for i, h := range devices {
		swan := h.Charon("")
		swan.Load(device(fmt.Sprintf("10.77.%d.2", i), fmt.Sprintf("10.77.%d.1", i), "unique = never"))
		swan.Do("--initiate", "--child", "net")
		at := inPool.FindString(swan.Do("--list-sas"))
		h.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "-I", at, "10.1.0.1")
		lent = append(lent, at)
	}
	if lent[0] == lent[1] || lent[0] == "" {
		t.Fatalf("they have %q", lent)
	}
	for i, h := range devices {
		h.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "-I", lent[i], "10.1.0.1")
	}
	if out := g.daemon.Ask("ike", "list", "--json"); strings.Count(out, "\n") != 2 || !strings.Contains(out, lent[0]) || !strings.Contains(out, lent[1]) {
		t.Errorf("the gateway says %s", out)
	}
}

// A caller that authenticates anew, by a new IKE SA before or after the end of the old
// one, keeps its address, and loses few packets where the new one comes first (those that
// are on their way while strongSwan changes from one to the other).
func TestStrongSwanReauthenticationKeepsAddress(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{"break before make": "", "make before break": "  make_before_break = yes\n"} {
		t.Run(name, func(t *testing.T) {
			l, road, gateway := lab.Pair(t)
			lab.Need(t, "ping")
			g := lendingGateway(t, l, gateway, "10.77.0.2")
			swan := road.Charon(settings)
			swan.Load(device("10.77.0.2", "10.77.0.1", "reauth_time = 4s\n    over_time = 20s\n    rekey_time = 0\n    rand_time = 0"))
			swan.Do("--initiate", "--child", "net")
			at := inPool.FindString(swan.Do("--list-sas"))
			lost := swan.PingFlood(netip.MustParseAddr(at), netip.MustParseAddr("10.1.0.1"), 1500, 5) // 15 s
			l.Eventually(waitLong, "three IKE SAs, one after the other", func() bool {
				return strings.Count(g.daemon.Ask("events", "--json"), `"ike-up"`) >= 3
			})
			gone := lost()
			if most := map[bool]int{true: 30, false: 750}[settings != ""]; len(gone) > most {
				t.Errorf("%d of 1500 pings lost", len(gone))
			}
			l.Eventually(waitLong, "one IKE SA with the address of before", func() bool {
				out := g.daemon.Ask("ike", "list", "--json")
				return strings.Count(out, "\n") == 1 && strings.Contains(out, `"leased":["`+at+`"]`)
			})
			for _, other := range inPool.FindAllString(g.daemon.Ask("events", "--json"), -1) {
				if other != at && other != "10.5.0.0" && other != "10.5.0.255" {
					t.Errorf("it had %s as well", other)
				}
			}
		})
	}
}
