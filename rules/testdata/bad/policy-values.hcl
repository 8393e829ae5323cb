policy {
  inbound    = "reject"
  outbound   = "protect"
  forward    = true
  essentials = "yes"
  on_failure = "shut"
  offload    = "all"
  queue      = 70000
  mark_mask  = "0x0f0f0000"
  log_rate   = -1
  log        = "drops"
}
