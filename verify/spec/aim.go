package spec

import (
	"net/netip"
	"net/url"
	"strings"
)

// At returns c as it is carried out from elsewhere: where it looks at the loopback
// interface, it looks at host, and asks for the same names as before. Defaults
// must have been filled in.
func (c Check) At(host string) Check {
	if isIP6(host) {
		host = "[" + strings.Trim(host, "[]") + "]"
	}
	if at, port, err := splitAddr(c.Addr); err == nil && loopback(at) {
		c.Addr = host + ":" + port
		if c.Chain && (c.SNI == "" || c.SNI == NoName) {
			c.Hostname = orElse(c.Hostname, at)
		}
		if c.Type == TLS && c.SNI == "" {
			c.SNI = NoName // and not the host's
		}
	}
	u, err := url.Parse(c.URL)
	if c.URL == "" || err != nil || !loopback(u.Hostname()) {
		return c
	}
	c.Host = orElse(c.Host, u.Host)
	if port := u.Port(); port != "" {
		u.Host = host + ":" + port
	} else {
		u.Host = host
	}
	c.URL = u.String()
	return c
}

func loopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback() || a.IsUnspecified()
	}
	return strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost")
}

func isIP6(host string) bool {
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.Is6()
}
