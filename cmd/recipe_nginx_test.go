package cmd_test

var nginxRecipe = recipe{
	name:    "nginx",
	version: `nginx -v 2>&1 | sed 's,.*/,,'`,
	root:    files{"nginx.conf": nginxConf("certs/site", "")},
	spoiled: map[string]files{
		validateFails: {"certs/site.key": "{otherkey}"},
		// nginx -t passes over a port that is taken.
		reloadFails: {"nginx.conf": nginxConf("certs/site", "listen {busy} ssl;")},
		wrong:       {"nginx.conf": nginxConf("certs/other", ""), "certs/other.pem": "{othercert}", "certs/other.key": "{otherkey}"},
	},
	refused: "key values mismatch",
	reload: `if alive; then
	nginx -p {current}/ -c nginx.conf -s reload
else
	nginx -p {current}/ -c nginx.conf >>run/start.log 2>&1
fi
`,
}

// nginxConf returns settings with this certificate, and something more.
func nginxConf(cert, more string) string {
	return nginxSettings("pid", `	server {
		listen {addr} ssl;
		`+more+`
		ssl_certificate `+cert+`.pem;
		ssl_certificate_key `+cert+`.key;
		root html;
	}
`)
}

// nginxSettings returns settings with what stands in http, and all else in run/.
func nginxSettings(pid, http string) string {
	return `user www-data;
worker_processes 2;
pid {dir}/run/` + pid + `;
error_log {dir}/run/error.log;
events {
}
http {
	access_log off;
	client_body_temp_path {dir}/run/body;
	proxy_temp_path {dir}/run/proxy;
	fastcgi_temp_path {dir}/run/fastcgi;
	uwsgi_temp_path {dir}/run/uwsgi;
	scgi_temp_path {dir}/run/scgi;
` + http + `}
`
}
