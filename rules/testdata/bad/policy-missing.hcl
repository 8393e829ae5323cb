policy {
}
