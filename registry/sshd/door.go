package sshd

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// patience is how long one may stand at the door when others want in.
const patience = 3 * time.Second

// Why somebody is not let in.
var (
	errCrowded   = errors.New("too many connections that have not authenticated")
	errSource    = errors.New("too many connections of this address that have not authenticated")
	errFull      = errors.New("too many connections")
	errPenalised = errors.New("too many failures of this address lately")
)

// door counts the connections: those who stand at it, because they have not
// authenticated, and those inside. When too many stand there, a new one takes
// the place of the oldest, if that has been there for some time: most handshakes
// take less than a second, so those who only hold connections open do not keep
// the others out, and many honest ones who come at once do not cut each other
// off.
type door struct {
	limits Limits
	draw   func() int // a random number from 0 to 99

	mu        sync.Mutex
	waiting   []*visitor           // the oldest first
	inside    int                  // visitors
	members   map[netip.Prefix]int // how many are inside, by source
	penalties penalties
	closed    bool
}

type visitor struct {
	conn   net.Conn
	source netip.Prefix
	since  time.Time
	inside bool // guarded by the door
}

func newDoor(l Limits) *door {
	return &door{
		limits: l, draw: func() int { return rand.N(100) }, members: map[netip.Prefix]int{},
		penalties: penalties{trusted: l.Trusted, sources: map[netip.Prefix]*penalty{}},
	}
}

// enter has conn stand at the door, to be taken out by leave, or says why not.
func (d *door) enter(conn net.Conn) (*visitor, error) {
	v := &visitor{conn: conn, source: sourceOf(conn.RemoteAddr()), since: time.Now()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(v); err != nil {
		return nil, err
	}
	d.waiting = append(d.waiting, v)
	return v, nil
}

func (d *door) refusal(v *visitor) error {
	same := func(w *visitor) bool { return w.source == v.source }
	anyone := func(*visitor) bool { return true }
	switch {
	case d.closed:
		return errStopping
	// A source from which somebody has come in is not an attacker's alone: it
	// is a network of ours behind one address.
	case d.members[v.source] == 0 && d.penalties.refuses(v.source, v.since):
		return errPenalised
	case len(d.waiting)+d.inside >= d.limits.Connections:
		return errFull
	case d.count(same) >= d.limits.Source && !d.relieve(same, v.since):
		return errSource
	case d.limits.Startups.refuses(len(d.waiting), d.draw()) && !d.relieve(anyone, v.since):
		return errCrowded
	}
	return nil
}

func (d *door) count(kind func(*visitor) bool) (n int) {
	for _, w := range d.waiting {
		if kind(w) {
			n++
		}
	}
	return n
}

// relieve sends the oldest visitor of a kind away, if it has been there for long
// enough.
func (d *door) relieve(kind func(*visitor) bool, now time.Time) bool {
	i := slices.IndexFunc(d.waiting, kind)
	if now.Sub(d.waiting[i].since) < patience {
		return false
	}
	d.waiting[i].conn.Close()
	d.waiting = slices.Delete(d.waiting, i, i+1)
	return true
}

// admit says that v has authenticated, and goes in, or why it may not.
func (d *door) admit(v *visitor, agent bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if agent && d.inside >= d.limits.forAgents() {
		return errFull
	}
	d.remove(v)
	v.inside = true
	d.inside++
	d.members[v.source]++
	return nil
}

// leave says that v is gone, wherever it was.
func (d *door) leave(v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !v.inside {
		d.remove(v)
		return
	}
	v.inside = false
	d.inside--
	if d.members[v.source]--; d.members[v.source] == 0 {
		delete(d.members, v.source)
	}
}

// remove takes v out of those who wait; it may have been sent away.
func (d *door) remove(v *visitor) {
	if i := slices.Index(d.waiting, v); i >= 0 {
		d.waiting = slices.Delete(d.waiting, i, i+1)
	}
}

// penalise remembers a failure of v for its source.
func (d *door) penalise(v *visitor, by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.penalties.add(v.source, by, time.Now())
}

// state returns how many wait, and how many sources are refused.
func (d *door) state() (waiting, penalised int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting), d.penalties.count(time.Now())
}

// shut sends everybody away who waits, and lets nobody in any more.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, v := range d.waiting {
		v.conn.Close()
	}
	d.waiting = nil
}

// sourceOf returns the address, or the network of an IPv6 address: who has one
// address of a /64 has them all.
func sourceOf(a net.Addr) netip.Prefix {
	ip := ipOf(a)
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// ipOf returns the invalid address for what is not on an IP network.
func ipOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap().WithZone("")
}

// hostOf returns the address without its port.
func hostOf(a net.Addr) string {
	if ip := ipOf(a); ip.IsValid() {
		return ip.String()
	}
	return clean(a.String(), maxUser)
}
