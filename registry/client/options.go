package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/user"
	"strings"
	"time"

	"deploytools/registry/wire"
)

// DefaultPort is the port of a registry whose address has none.
const DefaultPort = "2022"

// Options say where the registry is, how to know it, and who calls. Only Addr
// is needed.
type Options struct {
	Addr string // host or host:port
	User string // SSH user name; "" is the user of the process
	// Instance tells agents with one key apart, for polls and reports: up to 32
	// lower-case letters and digits. It is the same each time; "" says nothing.
	Instance string

	// Fingerprints are the host keys that are trusted, as ssh-keygen -l prints
	// them: "SHA256:...". One of them has to be the registry's. Where there are
	// none, KnownHosts decides.
	Fingerprints []string
	// KnownHosts are files of the known_hosts format (sshd(8)); those that do
	// not exist are left out. None means ~/.ssh/known_hosts and
	// /etc/ssh/ssh_known_hosts.
	KnownHosts []string

	// KeyFile is the private key; a certificate is taken from KeyFile-cert.pub.
	// "" means what the SSH agent has and the usual files in ~/.ssh.
	KeyFile string
	// AgentSocket is where the SSH agent listens; "" means that there is none.
	AgentSocket string
	// Passphrase returns the passphrase of an encrypted key. Nil means that
	// nobody can be asked.
	Passphrase func(file string) ([]byte, error)

	// Warn is told, once for each file, of private keys that others can reach.
	// Nil means Log.
	Warn func(text string)

	// NoLanes fetches over SFTP alone: lanes are for the keys of agents.
	NoLanes bool

	// Dial opens the TCP connection; nil means a net.Dialer.
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	Timeouts Timeouts
	Log      *slog.Logger // nil discards
}

// Timeouts bound each wait. A zero field takes the default in its comment.
type Timeouts struct {
	Dial      time.Duration // until the TCP connection stands: 15 s
	Handshake time.Duration // until the registry knows us: 45 s
	Reply     time.Duration // for a poll or a configuration: 30 s
	Stall     time.Duration // of a transfer of which no byte moves: 45 s
	// Keepalive is how often a silent registry is asked whether it is there;
	// the third question without a sign of life ends the connection: 30 s.
	Keepalive time.Duration
	Idle      time.Duration // until an unused SFTP session is closed: 1 min
}

func (t Timeouts) withDefaults() Timeouts {
	return Timeouts{
		Dial:      cmp.Or(t.Dial, 15*time.Second),
		Handshake: cmp.Or(t.Handshake, 45*time.Second),
		Reply:     cmp.Or(t.Reply, 30*time.Second),
		Stall:     cmp.Or(t.Stall, 45*time.Second),
		Keepalive: cmp.Or(t.Keepalive, 30*time.Second),
		Idle:      cmp.Or(t.Idle, time.Minute),
	}
}

// complete returns the options with every default filled in.
func (o Options) complete() (Options, error) {
	if o.Addr == "" {
		return o, errors.New("no address of a registry given")
	}
	o.Addr = withPort(o.Addr)
	if err := wire.CheckInstance(o.Instance); err != nil {
		return o, err
	}
	fingerprints := make([]string, len(o.Fingerprints))
	for i, f := range o.Fingerprints {
		var err error
		if fingerprints[i], err = parseFingerprint(f); err != nil {
			return o, err
		}
	}
	o.Fingerprints = fingerprints
	if o.User == "" {
		u, err := user.Current()
		if err != nil {
			return o, fmt.Errorf("no user name given, and the system has none: %w", err)
		}
		o.User = u.Username
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Warn == nil {
		o.Warn = func(text string) { o.Log.Warn("key is not safe", "error", text) }
	}
	o.Timeouts = o.Timeouts.withDefaults()
	return o, nil
}

// withPort adds the default port to an address without one. An IPv6 address may
// stand in brackets or alone.
func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), DefaultPort)
}
