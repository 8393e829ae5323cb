package host

// policyText is the policy in force, for `ipfw show` and for dry runs.
func (d *daemon) policyText() PolicyText {
	d.mu.Lock()
	now := d.current // a policy is not changed once it is loaded
	d.mu.Unlock()
	p := PolicyText{
		PolicyStatus: PolicyStatus{Paths: d.o.Paths, Generation: now.generation, Loaded: now.at, Warnings: notNil(now.Warnings)},
		Text:         string(now.Print()), Places: map[string]string{},
		IPsecPlaces: map[string]string{}, IKEPlaces: map[string]string{},
	}
	for i := range now.Engine.Rules {
		if r := &now.Engine.Rules[i]; r.Place != "" {
			p.Places[r.Name] = r.Place
		}
	}
	for i := range now.IPsec {
		p.IPsecPlaces[now.IPsec[i].Name] = now.IPsec[i].Place
	}
	for i := range now.IKE {
		p.IKEPlaces[now.IKE[i].Name] = now.IKE[i].Place
	}
	return p
}
