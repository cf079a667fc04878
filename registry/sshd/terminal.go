package sshd

import (
	"golang.org/x/crypto/ssh"
)

// terminal is the client's terminal, as pty-req and window-change describe it
// (RFC 4254 sections 6.2 and 6.7).
type terminal struct {
	dumb  bool
	sizes chan size // the newest size, if nobody has taken it yet
}

type size struct{ width, height int }

// parseTerminal returns nil for what is no pty-req.
func parseTerminal(payload []byte) *terminal {
	var m struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if ssh.Unmarshal(payload, &m) != nil {
		return nil
	}
	t := &terminal{dumb: m.Term == "dumb" || m.Term == "", sizes: make(chan size, 1)}
	t.sizes <- sizeOf(m.Columns, m.Rows)
	return t
}

// resize leaves the new size for the console to take. It never waits: who calls
// it reads what the console may be waiting for. It is called by one goroutine.
func (t *terminal) resize(payload []byte) bool {
	var m struct{ Columns, Rows, Width, Height uint32 }
	if ssh.Unmarshal(payload, &m) != nil {
		return false
	}
	select {
	case <-t.sizes:
	default:
	}
	t.sizes <- sizeOf(m.Columns, m.Rows)
	return true
}

// sizeOf bounds what a client says; 0 means that it does not know.
func sizeOf(columns, rows uint32) size {
	fit := func(n, otherwise uint32) int {
		if n == 0 {
			n = otherwise
		}
		return int(min(n, 1000))
	}
	return size{fit(columns, 80), fit(rows, 24)}
}
