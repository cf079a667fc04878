// Deployctl is the operator's program: see `deployctl help`.
package main

import (
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ctlcmd"
)

// Whoever builds the program for others may set where their registry is and
// how to know it:
//
//	go build -ldflags "-X main.defaultAddress=HOST:PORT -X main.defaultFingerprint=SHA256:..." ./cmd/deployctl
var defaultAddress, defaultFingerprint string

func main() {
	cli.Exit(ctlcmd.Defaults{Address: defaultAddress, Fingerprint: defaultFingerprint}.Main)
}
