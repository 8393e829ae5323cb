package main

import "github.com/ipfw/ipfw/engine"

// style is one way to print a word on a terminal (ECMA-48 SGR parameter).
type style string

// The styles; verdicts have their colours everywhere.
const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

// colored says whether the standard output takes colour: a terminal, and
// neither NO_COLOR (https://no-color.org) nor a dumb one.
func (a *app) colored() bool {
	return a.stdoutTTY && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// paint gives text in a style when the standard output takes colour.
func (a *app) paint(s style, text string) string {
	if !a.colored() || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// verdictStyle is the colour of a verdict.
func verdictStyle(v engine.Verdict) style {
	switch v {
	case engine.Bypass:
		return green
	case engine.Protect:
		return cyan
	}
	return red
}

// verdict gives a verdict's word in its colour.
func (a *app) verdict(v engine.Verdict) string {
	return a.paint(verdictStyle(v), v.String())
}
