package registrycmd

import (
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/sshd"
)

// limits are the flags that bound what clients may hold.
type limits struct {
	startups    sshd.Startups
	source      int
	connections int
	sessions    int
	handshake   time.Duration
	trusted     []string
}

func (l *limits) flags(fs *pflag.FlagSet) {
	l.startups = sshd.DefaultStartups
	fs.Var(&l.startups, "max-startups", "connections that have not authenticated, as `start:rate:full`: from start on a new one is refused with the probability rate, in percent, which grows to 100 at full")
	fs.IntVar(&l.source, "max-startups-source", 16, "greatest `number` of them from one address, or one IPv6 network of 64 bits")
	fs.IntVar(&l.connections, "max-connections", 0, "greatest `number` of connections; 0 is half of the limit of file descriptors. The last sixteenth is kept for operators")
	fs.IntVar(&l.sessions, "max-sessions", 16, "greatest `number` of sessions on one connection")
	fs.DurationVar(&l.handshake, "handshake", 30*time.Second, "`time` that one may take to authenticate")
	fs.StringArrayVar(&l.trusted, "trusted", []string{"127.0.0.0/8", "::1/128"}, "`network` whose failures have no consequences, such as that of a proxy in front; may be repeated")
}

func (l *limits) check() error {
	for _, n := range []struct {
		flag  string
		value int
	}{{"-max-startups-source", l.source}, {"-max-sessions", l.sessions}} {
		if n.value < 1 {
			return cli.Usage("%s should be positive", n.flag)
		}
	}
	if l.connections != 0 && l.connections < 2 {
		return cli.Usage("-max-connections should be at least 2, or 0")
	}
	if l.handshake <= 0 {
		return cli.Usage("-handshake should be positive")
	}
	_, err := l.networks()
	return err
}

// networks takes an address for the network of it alone.
func (l *limits) networks() ([]netip.Prefix, error) {
	out := []netip.Prefix{}
	for _, text := range l.trusted {
		if ip, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil {
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, cli.Usage("-trusted %q: should be an address or a network, such as 192.0.2.0/24", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// of returns the limits as the server takes them.
func (l *limits) of() sshd.Limits {
	trusted, _ := l.networks() // checked
	return sshd.Limits{Startups: l.startups, Source: l.source, Connections: l.connections, Sessions: l.sessions, Trusted: trusted}
}
