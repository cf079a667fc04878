package keys

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// Addresses is the list of from=. The zero value admits every address.
type Addresses []addresses

// addresses is one pattern: a network, or text with wildcards.
type addresses struct {
	not     bool
	network netip.Prefix
	pattern string // where there is no network
}

// parseAddresses reads patterns, separated by commas: an address, a network in
// CIDR notation, or an address with the wildcards * and ?, each with an
// exclamation mark before it where it is to be left out.
func parseAddresses(text string) (Addresses, error) {
	var out Addresses
	admits := false
	for word := range strings.SplitSeq(text, ",") {
		a, err := parseAddress(word)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
		admits = admits || !a.not
	}
	if !admits {
		return nil, errors.New("it admits nobody: add * if all others may come")
	}
	return out, nil
}

func parseAddress(word string) (a addresses, err error) {
	text, not := strings.CutPrefix(word, "!")
	a.not = not
	const digits = "0123456789abcdefABCDEF"
	switch {
	case strings.Contains(text, "/"):
		a.network, err = netip.ParsePrefix(text)
		switch {
		case err != nil:
			err = fmt.Errorf("%q is no network", text)
		case a.network.Addr().Is4In6():
			err = fmt.Errorf("network %s: write it as one of IPv4", text)
		case a.network.Masked() != a.network:
			err = fmt.Errorf("network %s has bits behind its mask: is %s meant?", text, a.network.Masked())
		}
	case strings.ContainsAny(text, "*?"):
		a.pattern = strings.ToLower(text)
		if strings.Trim(text, digits+".:*?") != "" {
			err = fmt.Errorf("%q should be an address with wildcards: names of hosts are not looked up", text)
		}
	default:
		var ip netip.Addr
		if ip, err = netip.ParseAddr(text); err != nil {
			return a, fmt.Errorf("%q should be an address or a network: names of hosts are not looked up", text)
		}
		a.network = netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen())
	}
	return a, err
}

// Admit reports whether a client at the address ip may come. One that has no IP
// address is admitted only where there is no list.
func (a Addresses) Admit(ip netip.Addr) bool {
	if len(a) == 0 {
		return true
	}
	ip = ip.Unmap().WithZone("")
	admitted := false
	for _, p := range a {
		if !p.holds(ip) {
			continue
		}
		if p.not {
			return false // wherever it stands, as in ssh_config(5)
		}
		admitted = true
	}
	return admitted
}

func (a addresses) holds(ip netip.Addr) bool {
	if a.pattern == "" {
		return a.network.Contains(ip)
	}
	ok, err := path.Match(a.pattern, ip.String())
	return ok && err == nil && ip.IsValid()
}
