package agentcmd

import (
	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
)

// commands are what an operator does on the host.
func (s *settings) commands() []cli.Command {
	return []cli.Command{s.logCommand(), s.evidenceCommand()}
}

// onHost is what these commands share: they find the agent by its directory.
type onHost struct {
	s    *settings // the program's flags
	own  string
	json bool
}

// Flags defines the flags.
func (h *onHost) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&h.own, "dir", "", "the agent's `directory` (default that of deploy-agent -dir, or of DEPLOY_AGENT_DIR)")
	fs.BoolVar(&h.json, "json", false, "print JSON")
	cli.FileFlag(fs, "dir")
}

// dir returns the agent's directory.
func (h *onHost) dir() string {
	if h.own != "" {
		return h.own
	}
	return h.s.dir
}
