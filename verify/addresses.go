package verify

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	syncatomic "sync/atomic"
	"time"

	"deploytools/verify/spec"
)

// maxPatience is how long a look waits for the connection to one address of
// several when it is enough that those pass which accept connections.
const maxPatience = 3 * time.Second

// place is one address to look at.
type place struct {
	network, addr string
	patience      time.Duration   // for a connection; 0: as long as the look
	connected     syncatomic.Bool // its connection may come after the look has ended
	found         Finding         // afterwards
}

// eachAddress looks at every address that c means: its socket, or those that
// the name in addr stands for, all at the same time. look calls its connect at
// most once and closes what it gets.
func eachAddress(ctx context.Context, c spec.Check, addr string, look func(ctx context.Context, connect func() (net.Conn, error)) Finding) Finding {
	places, err := resolve(ctx, c, addr)
	if err != nil {
		return lost(ctx, Dial, err)
	}
	return lookPlaces(ctx, c, places, look)
}

func lookPlaces(ctx context.Context, c spec.Check, places []*place, look func(context.Context, func() (net.Conn, error)) Finding) Finding {
	var wg sync.WaitGroup
	for _, p := range places {
		wg.Go(func() {
			p.found = look(ctx, func() (net.Conn, error) {
				conn, err := connect(ctx, p)
				p.connected.Store(err == nil)
				return conn, err
			})
		})
	}
	wg.Wait()
	if len(places) == 1 && c.NeedAddresses(1) <= 1 {
		return places[0].found
	}
	return together(c, places)
}

// resolve lists the addresses in a fixed order, so that what is said about them
// is the same each time.
func resolve(ctx context.Context, c spec.Check, addr string) ([]*place, error) {
	if c.Unix != "" {
		return []*place{{network: "unix", addr: c.Unix}}, nil
	}
	network := cmp.Or(c.Network, "tcp")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []*place{{network: network, addr: addr}}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, strings.Replace(network, "tcp", "ip", 1), host)
	if err != nil {
		return nil, err
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	ips = slices.Compact(ips)
	if len(ips) == 0 || len(ips) > spec.MaxAddresses {
		return nil, fmt.Errorf("lookup %s: %d addresses: want 1 to %d", host, len(ips), spec.MaxAddresses)
	}
	places := make([]*place, len(ips))
	for i, ip := range ips {
		places[i] = &place{network: network, addr: net.JoinHostPort(ip.String(), port)}
		if len(ips) > 1 && c.Addresses == "" {
			places[i].patience = maxPatience
		}
	}
	return places, nil
}

// together is the finding for several addresses. It has the kind of the first
// that did not pass.
func together(c spec.Check, places []*place) Finding {
	need := c.NeedAddresses(len(places))
	var passed, failed, away []*place
	for _, p := range places {
		switch {
		case p.found.Kind == "":
			passed = append(passed, p)
		case need == 0 && !p.connected.Load() && p.found.Kind != Cancelled && p.found.Kind != Spec:
			away = append(away, p)
		default:
			failed = append(failed, p)
		}
	}
	if len(passed) == 0 {
		failed, away = append(failed, away...), nil
	}
	switch {
	case len(places) < need:
		return Finding{Kind: Dial, Detail: fmt.Sprintf("the name has %d addresses, want %d", len(places), need)}
	case need > 0 && len(passed) >= need || need == 0 && len(failed) == 0:
		return allPassed(passed, failed, away)
	}
	f := failed[0].found
	f.Detail = fmt.Sprintf("%d of %d addresses did not pass: %s", len(failed), len(places), details(failed))
	for _, p := range failed {
		f.Addresses = append(f.Addresses, p.addr)
	}
	return f
}

// allPassed is the finding where as many passed as have to. The certificate
// that ends first is the one to tell of.
func allPassed(passed, failed, away []*place) Finding {
	f := passed[0].found
	var warnings []string
	for _, p := range passed {
		if !p.found.NotAfter.IsZero() && p.found.NotAfter.Before(f.NotAfter) {
			f.NotAfter = p.found.NotAfter
		}
		if p.found.Warning != "" {
			warnings = append(warnings, p.addr+": "+p.found.Warning)
		}
	}
	if len(failed) > 0 {
		warnings = append(warnings, fmt.Sprintf("%d of %d addresses did not pass: %s",
			len(failed), len(failed)+len(passed), details(failed)))
	}
	f.Warning = strings.Join(warnings, "; ")
	if len(away) > 0 {
		f.Detail = "no connection, which may be: " + details(away)
	}
	return f
}

func details(places []*place) string {
	var all []string
	for _, p := range places {
		all = append(all, fmt.Sprintf("%s: %s: %s", p.addr, p.found.Kind, p.found.Detail))
	}
	return strings.Join(all, "; ")
}
