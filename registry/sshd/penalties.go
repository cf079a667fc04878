package sshd

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// What failures of a source cost, as sshd's PerSourcePenalties have it. The time
// adds up, and runs out by itself; from enough on the source is refused until it
// has run out.
const (
	penaltyNothing = time.Second      // left without having tried a key
	penaltyKeys    = 5 * time.Second  // no key of it is known
	penaltyTimeout = 20 * time.Second // did not come to an end
	penaltyPanic   = 90 * time.Second // something in us broke over it

	penaltyEnough = 15 * time.Second
	penaltyMost   = 10 * time.Minute
)

// maxSources bounds what is remembered. Beyond it new sources go unpunished: the
// limits that hold for all together are left.
const maxSources = 1 << 14

// penalties remembers the failures of sources. It belongs to the door.
type penalties struct {
	trusted []netip.Prefix
	sources map[netip.Prefix]*penalty
	swept   time.Time
}

type penalty struct {
	until  time.Time // when it has run out
	active bool      // refused until then
}

func (p *penalties) add(source netip.Prefix, d time.Duration, now time.Time) {
	if !source.IsValid() || slices.ContainsFunc(p.trusted, func(t netip.Prefix) bool { return t.Overlaps(source) }) {
		return
	}
	s := p.sources[source]
	if s == nil {
		if p.sweep(now); len(p.sources) >= maxSources {
			return
		}
		s = &penalty{}
		p.sources[source] = s
	}
	if s.until.Before(now) {
		*s = penalty{until: now}
	}
	s.until = s.until.Add(d)
	if most := now.Add(penaltyMost); s.until.After(most) {
		s.until = most
	}
	s.active = s.active || s.until.Sub(now) >= penaltyEnough
}

// sweep forgets what has run out, if there may be much of it.
func (p *penalties) sweep(now time.Time) {
	if len(p.sources) < maxSources/2 || now.Sub(p.swept) < time.Second {
		return
	}
	p.swept = now
	for source, s := range p.sources {
		if s.until.Before(now) {
			delete(p.sources, source)
		}
	}
}

func (p *penalties) refuses(source netip.Prefix, now time.Time) bool {
	s := p.sources[source]
	return s != nil && s.active && now.Before(s.until)
}

func (p *penalties) count(now time.Time) (n int) {
	for _, s := range p.sources {
		if s.active && now.Before(s.until) {
			n++
		}
	}
	return n
}

// errTimeout says that a handshake took too long.
var errTimeout = errors.New("not authenticated in time")

// penaltyFor returns what a handshake that ended with err costs.
func penaltyFor(err error) time.Duration {
	if errors.Is(err, errTimeout) {
		return penaltyTimeout
	}
	if triedKeys(err) {
		return penaltyKeys
	}
	return penaltyNothing
}

// triedKeys reports whether somebody tried to authenticate. Clients begin with
// asking what methods there are, which is an error as well.
func triedKeys(err error) bool {
	auth, ok := errors.AsType[*ssh.ServerAuthError](err)
	return ok && slices.ContainsFunc(auth.Errors, func(e error) bool { return !errors.Is(e, ssh.ErrNoAuth) })
}
