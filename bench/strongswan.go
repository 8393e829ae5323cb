package main

import (
	"fmt"
	"strings"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Inner addresses of strongSwan's tunnel, on the hosts' loopback: its user
// space ESP knows no transport mode.
const swanClient, swanServer = "10.89.0.2", "10.89.0.1"

// upStrongswan runs charon on each host, with ESP in its own threads, and has
// the client call the server.
func upStrongswan(s *site) {
	secret := randomHex(s, 32)
	caller := swan(s, s.client, secret, swanEnd{"client", "10.77.0.2", swanClient}, swanEnd{"server", "10.77.0.1", swanServer})
	swan(s, s.server, secret, swanEnd{"server", "10.77.0.1", swanServer}, swanEnd{"client", "10.77.0.2", swanClient})
	if out := caller.Do("--initiate", "--child", "bench"); !strings.Contains(out, "completed successfully") {
		s.Fatalf("strongSwan does not come up:\n%s", out)
	}
	s.target = swanServer
}

// swanEnd is one end of the tunnel.
type swanEnd struct{ id, outer, inner string }

func swan(s *site, on *lab.Host, secret string, local, remote swanEnd) *lab.Charon {
	on.Run("ip", "addr", "add", local.inner+"/32", "dev", "lo")
	c := on.Charon("")
	c.Load(fmt.Sprintf(`
connections {
  bench {
    version = 2
    local_addrs = %[2]s
    remote_addrs = %[5]s
    proposals = aes128-sha256-x25519
    local {
      auth = psk
      id = %[1]s
    }
    remote {
      auth = psk
      id = %[4]s
    }
    children {
      bench {
        local_ts = %[3]s/32
        remote_ts = %[6]s/32
        esp_proposals = aes128gcm16
      }
    }
  }
}
secrets {
  ike-bench {
    secret = "%[7]s"
  }
}
`, local.id, local.outer, local.inner, remote.id, remote.outer, remote.inner, secret))
	return c
}
