package e2e

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

const alwaysSecret = "a secret of some length"

// alwaysUs is the policy of the host that wants its tunnel at once and always; more
// is of the rule and the ike block.
func alwaysUs(l *lab.Lab, rule, block string) string {
	return swanUs(l, "10.77.0.1", rule, "initiate = \"start\"\n  "+block)
}

// swanUs is the policy of a host with a tunnel to a strongSwan at an address.
func swanUs(l *lab.Lab, at, rule, block string) string {
	l.File("psk", alwaysSecret+"\n")
	return l.File("policy.hcl", `
policy {
  inbound  = "bypass"
  outbound = "bypass"
}
rule "net" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = "10.2.0.0/24"
  `+rule+`
}
ipsec "peer" {
  mode = "tunnel"
  ike  = "peer"
}
ike "peer" {
  remote_endpoint = "`+at+`"
  local_id        = "us.example"
  remote_id       = "them.example"
  psk_file        = "psk"
  `+block+`
}
`)
}

// alwaysThem is strongSwan's configuration.
func alwaysThem(conn, child, more string) string {
	return swanThem("10.77.0.1", conn, "net {\n        local_ts = 10.2.0.0/24\n        "+child+"\n      }", more)
}

// swanThem is that of a strongSwan at an address, with its children.
func swanThem(at, conn, children, more string) string {
	return `connections {
  us {
    version = 2
    local_addrs = ` + at + `
    ` + conn + `
    local {
      auth = psk
      id = them.example
    }
    remote {
      auth = psk
      id = us.example
    }
    children {
      ` + children + `
    }
  }
}
secrets {
  ike-us {
    secret = "` + alwaysSecret + `"
  }
}
` + more
}

// always brings up strongSwan with a configuration that does not fit, and ipfw. Once
// ipfw has heard the refusal, strongSwan gets the right one, and nobody sends.
func always(t *testing.T, rule, block, wrong, right, failure string) (l *lab.Lab, us *ikeHost, swan *lab.Charon) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "ping")
	client.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
	client.Run("ip", "route", "add", "10.2.0.0/24", "via", "10.77.0.1")
	server.Run("ip", "addr", "add", "10.2.0.1/32", "dev", "lo")
	server.Run("ip", "route", "add", "10.1.0.0/24", "via", "10.77.0.2")
	swan = server.Charon("")
	swan.Load(wrong)
	us = &ikeHost{Host: client, name: "client", policy: alwaysUs(l, rule, block)}
	us.run(t)
	l.Eventually(waitLong, "the refusal is told", func() bool {
		return strings.Contains(us.daemon.Ask("events", "--json"), failure)
	})
	swan.Load(right)
	l.Eventually(waitLong, "a tunnel that nobody has sent by", func() bool {
		return strings.Count(us.daemon.Ask("sas", "--json"), "\n") == 2
	})
	return l, us, swan
}

// A peer that refuses the selectors of the first call, because its configuration comes
// later, has its tunnel all the same: it can reach us before we send anything.
func TestStrongSwanStartAfterRefusedSelectors(t *testing.T) {
	t.Parallel()
	l, us, swan := always(t, `local_address = "10.1.0.0/24"`, "",
		alwaysThem("", "remote_ts = 10.9.0.0/24", ""), alwaysThem("", "remote_ts = 10.1.0.0/24", ""), "selectors-do-not-overlap")
	l.Eventually(waitLong, "an answer to the peer's ping", func() bool {
		return swan.Ping(netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("10.1.0.1")) == nil
	})
	if out := us.daemon.Ask("ike", "list", "--json"); strings.Count(out, "\n") != 1 {
		t.Errorf("IKE SAs: %s", out)
	}
}

// A remote user for whom the gateway has no address at first asks again, and has it
// when there is one.
func TestStrongSwanStartWithoutAddress(t *testing.T) {
	t.Parallel()
	l, us, _ := always(t, "", "request_address = true",
		alwaysThem("", "", ""), alwaysThem("pools = four", "", "pools {\n  four {\n    addrs = 10.5.0.0/24\n  }\n}\n"), "no-address")
	l.Eventually(waitLong, "the address", func() bool {
		return strings.Contains(us.Run("ip", "-4", "-o", "addr", "show", "dev", "ipfw0"), "10.5.0.")
	})
	us.Run("ping", "-c", "2", "-i", "0.2", "-W", "5", "10.2.0.1")
}

// A gateway that wants to be shown anew every ten seconds who has called (AUTH_LIFETIME,
// RFC 4478) gets it: a new IKE SA takes over each time, with the same address.
func TestStrongSwanAuthLifetimeOfGateway(t *testing.T) {
	t.Parallel()
	l, client, server := lab.Pair(t)
	lab.Need(t, "ping")
	client.Run("ip", "route", "add", "10.2.0.0/24", "via", "10.77.0.1")
	server.Run("ip", "addr", "add", "10.2.0.1/32", "dev", "lo")
	swan := server.Charon("")
	swan.Load(alwaysThem("pools = four\n    reauth_time = 10s\n    over_time = 8s\n    rand_time = 0", "", "pools {\n  four {\n    addrs = 10.5.0.0/24\n  }\n}\n"))
	us := &ikeHost{Host: client, name: "client", policy: alwaysUs(l, "", "request_address = true")}
	us.run(t)
	l.Eventually(waitLong, "the address", func() bool {
		out, _ := us.Try(waitLong, "ip", "-4", "-o", "addr", "show", "dev", "ipfw0")
		return strings.Contains(out, "10.5.0.1/")
	})
	load := us.Start("ping", "-n", "-c", "1505", "-i", "0.02", "-W", "5", "-I", "10.5.0.1", "10.2.0.1") // half a minute
	l.Eventually(waitLong, "four IKE SAs, one after the other", func() bool {
		return strings.Count(us.daemon.Ask("events", "--json"), `"ike-up"`) >= 4
	})
	if err := load.Wait(waitLong); err != nil {
		t.Error(err)
	}
	if gone := lab.Unanswered(load.Output(), 1500); len(gone) > 15 {
		t.Errorf("%d of 1500 pings lost: %v", len(gone), gone)
	}
	if out := us.daemon.Ask("events", "--json"); strings.Contains(out, `"failed"`) || strings.Contains(out, "10.5.0.2") {
		t.Errorf("events: %s", out)
	}
	if strings.Contains(swan.Log(), "did not reauthenticate") {
		t.Error("strongSwan has ended an IKE SA that was not authenticated anew")
	}
}
