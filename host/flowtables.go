package host

import "strings"

// watchFlowtables tells of the flowtables of others when they come, change or go, and
// when a policy that protects makes them mean something else.
func (d *daemon) watchFlowtables(st *QueueStatus) {
	message := flowtablesMessage(st)
	if message == d.flowtables {
		return
	}
	d.flowtables = message
	if message == "" {
		message = "no flowtable of others is there any more"
	}
	d.ring.add(&Event{Kind: KindTable, Message: message})
}

// flowtablesMessage says what flowtables of others mean for the policy; "" without any.
func flowtablesMessage(st *QueueStatus) string {
	if len(st.Flowtables) == 0 {
		return ""
	}
	there := "there are flowtables of others: " + strings.Join(st.Flowtables, ", ") + "; "
	switch {
	case st.NotApart != "":
		return there + "PROTECTED TRAFFIC MAY LEAVE IN THE CLEAR by them, because what is forwarded cannot be kept out of them: remove them, or what adds flows to them (flow add): " + st.NotApart
	case st.Apart:
		return there + "they get no flow that begins now, because the policy protects; flows that were in them before pass by this policy until they end"
	}
	return there + "what they carry passes by this policy, is not counted, and goes on when a new policy would discard it: " +
		"take the devices, or the flows that the policy is to hold, out of them"
}
