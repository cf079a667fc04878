package cmd_test

var apacheRecipe = recipe{
	name:    "apache",
	version: `apache2 -v | sed -n 's,.*Apache/\([0-9.]*\).*,\1,p'`,
	root:    files{"apache2.conf": apacheConf("certs/site", "")},
	spoiled: map[string]files{
		// apache2 -t passes over it.
		validateFails: {"certs/site.key": "{otherkey}"},
		reloadFails:   {"apache2.conf": apacheConf("certs/site", "Listen {busy}")},
		wrong:         {"apache2.conf": apacheConf("certs/other", ""), "certs/other.pem": "{othercert}", "certs/other.key": "{otherkey}"},
	},
	refused: "does not belong to the certificate",
	reload: `if alive; then
	apache2 -d {current} -f apache2.conf -k graceful
else
	rm -f run/pid
	apache2 -d {current} -f apache2.conf -k start >>run/start.log 2>&1
fi
`,
}

// apacheConf returns settings with this certificate, and something more.
func apacheConf(cert, more string) string {
	const modules = "/usr/lib/apache2/modules/mod_"
	conf := ""
	for _, module := range []string{"mpm_event", "authz_core", "ssl"} {
		conf += "LoadModule " + module + "_module " + modules + module + ".so\n"
	}
	return conf + `ServerName site.test
PidFile {dir}/run/pid
ErrorLog {dir}/run/error.log
DefaultRuntimeDir {dir}/run
Mutex file:{dir}/run default
User www-data
Group www-data
Listen {addr}
` + more + `
<VirtualHost {addr}>
	SSLEngine on
	SSLCertificateFile ` + cert + `.pem
	SSLCertificateKeyFile ` + cert + `.key
	DocumentRoot html
	<Directory />
		Require all granted
	</Directory>
</VirtualHost>
`
}
