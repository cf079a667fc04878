package sshd

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// Limits bound what clients may hold. Each zero value is the default.
type Limits struct {
	// Startups bounds the connections that have not authenticated.
	Startups Startups
	// Source bounds them for one address, or one IPv6 network of /64; 0: 16.
	Source int
	// Connections bounds all connections; 0: as many as file descriptors allow
	// (see budget). The last sixteenth of them is kept for operators.
	Connections int
	// Sessions bounds what is open at a time on one connection; 0: 16.
	Sessions int
	// Files bounds the files that are open at a time on one connection, over
	// SFTP; 0: 64. All connections together have a share of the file
	// descriptors.
	Files int
	// Trusted are the networks whose failures have no consequences. Nil: the
	// loopback networks, where an address says nothing about who comes.
	Trusted []netip.Prefix
}

// Startups bounds the connections that have not authenticated, with the meaning
// of sshd's MaxStartups: from Start on a new one is refused with the probability
// Rate, in percent, which grows evenly to 100 at Full.
type Startups struct{ Start, Rate, Full int }

// DefaultStartups is what Startups without values are.
var DefaultStartups = Startups{32, 30, 64}

// String returns the three numbers as Set takes them.
func (s Startups) String() string { return fmt.Sprintf("%d:%d:%d", s.Start, s.Rate, s.Full) }

// Set reads START:RATE:FULL, or FULL alone.
func (s *Startups) Set(text string) error {
	var n []int
	for field := range strings.SplitSeq(text, ":") {
		v, err := strconv.Atoi(field)
		if err != nil || v < 1 {
			return fmt.Errorf("%q is not a number above 0", field)
		}
		n = append(n, v)
	}
	switch {
	case len(n) == 1:
		*s = Startups{n[0], 100, n[0]}
		return nil
	case len(n) != 3:
		return fmt.Errorf("should be START:RATE:FULL, such as %v", DefaultStartups)
	case n[1] > 100 || n[0] > n[2]:
		return fmt.Errorf("RATE is in percent, and FULL not below START, as in %v", DefaultStartups)
	}
	*s = Startups{n[0], n[1], n[2]}
	return nil
}

// Type is the name of the value in help.
func (*Startups) Type() string { return "string" }

// refuses says whether one more is refused where waiting are there already.
// drawn is a random number from 0 to 99.
func (s Startups) refuses(waiting, drawn int) bool {
	switch {
	case waiting < s.Start:
		return false
	case waiting >= s.Full:
		return true
	}
	return drawn < s.Rate+(100-s.Rate)*(waiting-s.Start)/(s.Full-s.Start)
}

func (l Limits) complete(b budget) Limits {
	l.Startups = cmp.Or(l.Startups, DefaultStartups)
	l.Source = cmp.Or(l.Source, 16)
	l.Connections = cmp.Or(l.Connections, b.connections)
	l.Sessions = cmp.Or(l.Sessions, 16)
	l.Files = cmp.Or(l.Files, 64)
	if l.Trusted == nil {
		l.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	return l
}

// forAgents is how many connections there may be for one of them to be an
// agent's: fleets grow, and who is to see to it must get in.
func (l Limits) forAgents() int { return l.Connections - max(1, l.Connections/16) }

// budget shares out the file descriptors of the process, so that none of its
// parts runs out of them because of another: a quarter is for files that are
// open over SFTP, and a quarter for what the registry itself opens to store and
// to check something.
type budget struct {
	connections int
	files       int
}

// manyDescriptors stands for a limit that is not known, or none.
const manyDescriptors = 1 << 16

func newBudget() budget {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur > math.MaxInt32 {
		l.Cur = manyDescriptors
	}
	n := int(l.Cur)
	return budget{connections: max(2, n/2), files: max(1, n/4)}
}
