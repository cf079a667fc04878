package agentcmd

import (
	"bytes"
	"os"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// instance returns what tells this machine from others whose agents have the same
// key: the same after each start. It does not give the machine's ID away, which
// machine-id(5) asks for.
func instance() string {
	id, _ := os.ReadFile("/etc/machine-id")
	if id = bytes.TrimSpace(id); len(id) == 0 {
		host, _ := os.Hostname()
		id = []byte(host)
	}
	if len(id) == 0 {
		return ""
	}
	return digest.Of(append([]byte("deploy-agent instance "), id...)).String()[:wire.MaxInstance/2]
}
