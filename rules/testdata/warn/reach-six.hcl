policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "net-0" {
  action         = "discard"
  direction      = "both"
  remote_address = "10.0.0.0/16"
}

rule "net-1" {
  action         = "discard"
  direction      = "both"
  remote_address = "10.1.0.0/16"
}

rule "net-2" {
  action         = "discard"
  direction      = "both"
  remote_address = "10.2.0.0/16"
}

rule "net-3" {
  action         = "discard"
  direction      = "both"
  remote_address = "10.3.0.0/16"
}

rule "net-4" {
  action         = "discard"
  direction      = "both"
  remote_address = "10.4.0.0/16"
}

rule "net-5" {
  action         = "discard"
  direction      = "both"
  remote_address = "10.5.0.0/16"
}

rule "nets" {
  action         = "bypass"
  direction      = "in"
  remote_address = ["10.0.0.0/15", "10.2.0.0/15", "10.4.0.0/15"]
}
