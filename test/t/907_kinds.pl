use strict; use warnings; use ClerkTest; use PostgreSQL::Test::Utils; use Test::More; use JSON::PP; use Time::HiRes qw(time);
my $mock = start_mock(); $mock->settings({record=>'off'});
my $node = clerk_node('k', $mock, conf=>"fsync=off\nlog_min_messages=fatal\nlog_statement=none\n", server=>{max_retries=>0});
my $json='{"id":"c1","name":"x"';
$mock->script({match=>{body_contains=>'"too_large"'},times=>0,status=>201,fill=>{prefix=>"$json,\"x\":\"",size=>1000000,byte=>'a'}},{match=>{body_contains=>'"silent"'},times=>0,hold=>JSON::PP::true},
  {match=>{body_contains=>'"no_utf8"'},times=>0,status=>201,body_base64 => 'eyJpZCI6ICL/In0='});
my $h = start_server(sub { sysread $_[0], my $in, 1000; syswrite $_[0], "HTTP/1.1 400\r\n\r\n"; });
clerk_server($node,$mock,name=>'no_tls',server=>{api_url=>'https://127.0.0.1:'.$h->port,max_retries=>0});
clerk_server($node,$mock,name=>'small',server=>{max_response_size=>'2kB',max_retries=>0});
clerk_server($node,$mock,name=>'hasty',server=>{timeout=>'2ms',max_retries=>0});
$node->safe_psql('postgres', "CREATE ROLE nobody");
sub c { my ($n,$s)=@_; "PERFORM create_enterprise_connection(name=>'$n',provider=>'saml_okta',domains=>'{x.example}',server=>'$s')" }
my %c = (
 (map { $_ => c('n',$_) } qw(no_tls nowhere)),
 (map { $_ => c($_,'small') } qw(too_large)), silent => c('silent','hasty'), no_utf8=>c('no_utf8','clerk'),
 read_only => "PERFORM set_config('transaction_read_only', 'on', true);".c('n','clerk'),
 no_usage => "PERFORM set_config('role', 'nobody', true);".c('n','clerk'),
 wrong_type => q{PERFORM create_enterprise_connection('{"name": 1, "domains": {}, "oidc": [], "active": "yes"}')},
);
for my $k (sort keys %c) {
  my $s=session($node); my @r; my $t=time;
  for (1..8) { $s->query("DO \$\$ BEGIN FOR i IN 1..300 LOOP BEGIN $c{$k}; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END \$\$");
   my ($kb)=slurp_file('/proc/'.$s->pid.'/status') =~ /RssAnon:\s*(\d+)/; push @r,$kb; }
  diag sprintf "%-8s %s  %.1f s", $k, join(' ', @r), time-$t; $s->stop;
}
ok 1; done_testing;
