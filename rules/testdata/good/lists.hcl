policy {
  inbound    = "discard"
  outbound   = "bypass"
  essentials = false
}
locals {
  drop = file("lists/drop.txt")
  more = [local.drop, "203.0.113.1"]
}
rule "drop" {
  action         = "discard"
  direction      = "in"
  remote_address = local.drop
}
rule "drop-more" {
  action         = "discard"
  direction      = "both"
  local_address  = [file("lists/drop.txt"), local.more]
  remote_address = concat(["2001:db8:5::/48"], file("lists/none.txt"), [for f in ["drop", "none"] : file("lists/${f}.txt")])
}
