package packet

import (
	"sort"
	"strings"
)

// ServicePort gives the port of a service by its IANA name or by a usual
// alias; case does not matter.
func ServicePort(name string) (uint16, bool) {
	name = strings.ToLower(name)
	for i := range services {
		if services[i].name == name {
			return services[i].port, true
		}
	}
	i := sort.Search(len(serviceAliases), func(i int) bool { return serviceAliases[i].name >= name })
	if i < len(serviceAliases) && serviceAliases[i].name == name {
		return serviceAliases[i].port, true
	}
	return 0, false
}

// ServiceName gives the name of the service that is known at a port of TCP,
// UDP, UDP-Lite or SCTP; empty if none is.
func ServiceName(port uint16, proto uint8) string {
	var over transports
	switch proto {
	case TCP:
		over = tcp
	case UDP, UDPLite:
		over = udp
	case SCTP:
		over = sctp
	}
	i := sort.Search(len(services), func(i int) bool { return services[i].port >= port })
	for ; i < len(services) && services[i].port == port; i++ {
		if services[i].over&over != 0 {
			return services[i].name
		}
	}
	return ""
}

// service is one name. Its port is the same over all its transports.
type service struct {
	name string
	port uint16
	over transports
}

// transports is a set of transport protocols.
type transports uint8

const (
	tcp transports = 1 << iota
	udp
	sctp
	tcpUDP  = tcp | udp
	tcpSCTP = tcp | sctp
	all     = tcp | udp | sctp
)
