# What test/bench/run has measured, as a table, as JSON, and as a plot.
#
#   report.pl --list PART...
#   report.pl --check DIR PART...  is everything in the three files? as TAP
#   report.pl --samples FILE --json FILE --text FILE --svg FILE NAME=VALUE... -- PART...
use strict;
use warnings;
use FindBin;
use JSON::PP;

my (%file, %about);

# The lines of the table, of these parts.
sub lines_of
{
	my %wanted = map { $_ => 1 } @_;
	my @lines;

	open my $in, '<', "$FindBin::Bin/lines" or die "lines: $!\n";
	while (<$in>)
	{
		next if /^#/;
		chomp;
		my ($id, $part, $what, $beside, $unit, $goal) = map { s/^\s+|\s+$//gr } split /\|/, $_, -1;
		push @lines, { id => $id, part => $part, what => $what, beside => $beside, unit => $unit, goal => $goal }
			if $wanted{$part};
	}
	return @lines;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	my $middle = int(@sorted / 2);

	return @sorted % 2 ? $sorted[$middle] : ($sorted[ $middle - 1 ] + $sorted[$middle]) / 2;
}

sub read_samples
{
	my %samples;

	open my $in, '<', $file{samples} or die "$file{samples}: $!\n";
	while (<$in>)
	{
		chomp;
		my ($id, $side, $value) = split /\t/;
		push @{ $samples{$id}{$side} }, $value + 0;
	}
	return \%samples;
}

# What is judged is the ratio to the floor, if there is one; else the figure.
sub summarize
{
	my ($line, $samples) = @_;
	my ($floor, $ours) = map { $samples->{$_} // [] } qw(floor ours);
	my @judged = @$ours;
	my $value;

	return unless @$ours;
	$line->{samples} = { ours => $ours };
	$value = $line->{ours} = median(@$ours);
	if ($line->{beside} ne '')
	{
		die "$line->{id}: not as many of the floor\n" unless @$floor == @$ours;
		$line->{samples}{floor} = $floor;
		$line->{floor} = median(@$floor);
		$value = $line->{ratio} = $line->{ours} / $line->{floor};
		@judged = map { $ours->[$_] / $floor->[$_] } 0 .. $#$ours;
	}
	($line->{min}, $line->{max}) = (sort { $a <=> $b } @judged)[ 0, -1 ];
	return unless $line->{goal} =~ /^([<>])= ([\d.]+)$/;
	$line->{met} = ($1 eq '<' ? $value <= $2 : $value >= $2) ? JSON::PP::true : JSON::PP::false;
	# how far the goal is met: 1 is just so, more is better
	my ($top, $bottom) = $1 eq '<' ? ($2, $value) : ($value, $2);
	$line->{of_goal} = $bottom > 0 ? $top / $bottom : 1;
}

sub number
{
	my ($value) = @_;

	return '-' unless defined $value;
	return '0' if $value == 0;
	return sprintf abs($value) >= 1000 ? '%.0f' : abs($value) >= 100 ? '%.1f' : abs($value) >= 10 ? '%.2f' : '%.3f', $value;
}

sub table
{
	my @lines = @_;
	my $format = "%-39s %-27s %-10s %9s %9s %7s %7s %7s  %-8s %s\n";
	my $text = sprintf $format, qw(what beside unit floor ours ratio min max goal met);

	for my $line (@lines)
	{
		$text .= sprintf $format, @$line{qw(what beside unit)}, map({ number($line->{$_}) } qw(floor ours ratio min max)),
			$line->{goal} || '-', defined $line->{met} ? ($line->{met} ? 'yes' : 'NO') : '-';
	}
	return $text =~ s/ +$//gmr;
}

sub slurp
{
	my ($name) = @_;

	open my $in, '<', $name or return '';
	local $/;
	return <$in>;
}

sub check
{
	my ($dir, @parts) = @_;
	my $table = slurp("$dir/bench.txt");
	my $json = eval { decode_json(slurp("$dir/bench.json")) } // {};
	my %lines = map { $_->{id} => $_ } @{ $json->{lines} // [] };
	my $svg = slurp("$dir/bench.svg");

	for my $line (lines_of(@parts))
	{
		my $found = $lines{ $line->{id} } // {};
		my @wanted = (qw(ours min max), $line->{beside} ne '' ? qw(floor ratio) : (), $line->{goal} ne '' ? qw(met of_goal) : ());
		my $good = $table =~ /^\Q$line->{what}\E +\Q$line->{beside}\E +\Q$line->{unit}\E +[-\d]/m
			&& !grep { !defined $found->{$_} } @wanted;

		$good &&= index($svg, $line->{what}) >= 0 if $line->{goal} ne '';
		print $good ? 'ok' : 'not ok', " - $line->{id}\n";
	}
}

sub spill
{
	my ($name, $text) = @_;

	open my $out, '>', $name or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
}

# Horizontal bars, the first line at the top. Text and lines are of a grey that
# shows on white and on black; the background is left out.
sub plot
{
	my @bars = grep { defined $_->{of_goal} } @_;
	my ($n, $low, @data) = (scalar @bars, 0.1);

	return unless @bars;
	for my $i (0 .. $#bars)
	{
		my $value = $bars[$i]{of_goal};
		my $label = $bars[$i]{what} . ($bars[$i]{beside} eq '' ? " ($bars[$i]{unit})" : " / $bars[$i]{beside}");

		$value = $value < $low * 1.1 ? $low * 1.1 : $value > 20 ? 20 : $value;
		push @data, sprintf qq("%s" %d %g %d %s\n), $label, $n - $i, $value, $bars[$i]{met} ? 1 : 0, number($bars[$i]{of_goal});
	}
	open my $gnuplot, '|-', 'gnuplot' or die "gnuplot: $!\n";
	print $gnuplot <<"PLOT";
set terminal svg size 960,@{[ 90 + 24 * $n ]} font 'sans-serif,12' noenhanced
set output '$file{svg}'
grey = 0x808080
set border 1 lc rgb grey
set tics textcolor rgb grey
set title 'how far each goal is met (1: just so; more is better)' textcolor rgb grey
set logscale x
set xrange [$low:25]
set yrange [0.3:$n.7]
set xtics ('0.1' 0.1, '0.2' 0.2, '0.5' 0.5, '1' 1, '2' 2, '5' 5, '10' 10, '20' 20) nomirror
set ytics scale 0 nomirror
set arrow from 1,0.3 to 1,$n.7 nohead lc rgb grey dt 2 front
unset key
\$bars << END
@{[ join '', @data ]}END
plot \$bars using 3:2:($low):3:(\$2-0.36):(\$2+0.36):(\$4 > 0 ? 0x1b9e77 : 0xd95f02):ytic(1) with boxxyerror fs solid 1 noborder lc rgb variable, \\
	\$bars using 3:2:5 with labels left offset 0.6,0 textcolor rgb grey
PLOT
	close $gnuplot or die "gnuplot failed\n";
}

if (($ARGV[0] // '') eq '--list')
{
	printf "%-20s %-39s %s\n", @$_{qw(id what beside)} for lines_of(@ARGV[ 1 .. $#ARGV ]);
	exit;
}
if (($ARGV[0] // '') eq '--check')
{
	shift;
	check(@ARGV);
	exit;
}
while (@ARGV)
{
	my $arg = shift;

	last if $arg eq '--';
	if ($arg =~ /^--(\w+)$/) { $file{$1} = shift; }
	elsif ($arg =~ /^(\w+)=(.*)$/s) { $about{$1} = $2; }
	else { die "what is $arg?\n"; }
}

my @lines = lines_of(@ARGV);
my $samples = read_samples();
summarize($_, $samples->{ $_->{id} } // {}) for @lines;
my $text = table(@lines);
print "\n$text";
spill($file{text}, $text);
spill($file{json}, JSON::PP->new->canonical->pretty->encode({ %about, lines => \@lines }));
plot(@lines);
