package packet

import "fmt"

// describe prints all fields of a packet, for comparing.
func describe(p Packet) string { return fmt.Sprintf("%+v", p) }
