module deploytools

go 1.26.5
