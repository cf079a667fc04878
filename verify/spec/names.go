package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// validName is the project's one rule for names.
func validName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._+@-", r)) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func validateAddr(addr string) error {
	host, port, err := splitAddr(addr)
	if err != nil || !validHost(host) || !validPort(port) {
		return fmt.Errorf("addr %s: want HOST:PORT", quote(addr))
	}
	return nil
}

// splitAddr takes host:port or [v6]:port apart; package net is not pure.
func splitAddr(addr string) (host, port string, err error) {
	i := strings.LastIndexByte(addr, ':')
	if i < 0 {
		return "", "", errors.New("no port")
	}
	host, port = addr[:i], addr[i+1:]
	if v6, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(v6, "]")
		if a, err := netip.ParseAddr(host); !ok || err != nil || !a.Is6() {
			return "", "", errors.New("no IPv6 address")
		}
		return host, port, nil
	}
	if strings.Contains(host, ":") {
		return "", "", errors.New("IPv6 address without brackets")
	}
	return host, port, nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func validHost(host string) bool {
	if isIP(host) {
		return !hasControl(host)
	}
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r) {
			return false
		}
	}
	return host != "" && len(host) <= 253 && !strings.HasPrefix(host, ".") && !strings.Contains(host, "..")
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// validPointer is RFC 6901 section 3.
func validPointer(p string) bool {
	for i := range len(p) {
		if p[i] == '~' && (i+1 == len(p) || p[i+1] != '0' && p[i+1] != '1') {
			return false
		}
	}
	return strings.HasPrefix(p, "/")
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// placeholders are what Body and Equals may use, in braces.
var placeholders = []string{"newid", "oldid", "name", "revision", "newroot"}

var placeholder = regexp.MustCompile(`\{([A-Za-z][A-Za-z0-9_-]*)\}`)

// validatePlaceholders reports the first word in braces that is no placeholder.
// A body is not held to that: braces are common in what servers send.
func validatePlaceholders(s string) error {
	for _, m := range placeholder.FindAllStringSubmatch(s, -1) {
		if !slices.Contains(placeholders, m[1]) {
			return unknown("placeholder", m[1], placeholders)
		}
	}
	return nil
}

// validUnit takes the characters of systemd.unit(5). A name that begins with a
// dash would be read as an option.
func validUnit(s string) bool {
	for _, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune(`:-_.\@`, r) {
			return false
		}
	}
	return s != "" && len(s) <= 255 && !strings.HasPrefix(s, "-")
}
