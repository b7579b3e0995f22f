# A psql that goes on for as long as the server lets it, and what came of each
# statement. It is not told what a statement means: what psql itself would read
# in it has to be in quotes.

package Session;

use strict;
use warnings;

use IO::Handle;
use IO::Select;
use POSIX ();
use Time::HiRes qw(time);

sub start
{
	my ($class, @options) = @_;
	my $self = bless { number => 0 }, $class;

	pipe my $in_read, my $in      or die "could not make a pipe: $!\n";
	pipe my $out,     my $out_end or die "could not make a pipe: $!\n";
	defined($self->{psql} = fork) or die "could not fork: $!\n";
	if ($self->{psql} == 0)
	{
		open STDIN,  '<&', $in_read;
		open STDOUT, '>&', $out_end;
		open STDERR, '>&', $out_end;
		close $_ for $in, $out;
		exec 'psql', '-X', '-A', '-t', '-q', '-v', 'VERBOSITY=verbose', '-v', 'SHOW_CONTEXT=never', @options
		  or POSIX::_exit(127);
	}
	close $_ for $in_read, $out_end;
	binmode $in, ':raw';
	$in->autoflush(1);
	@$self{qw(in out text)} = ($in, $out, '');
	return $self;
}

# run(SECONDS, SQL...): for each statement {out}, and {errors} as an array of
# [SQLSTATE, message]; undef if the session has ended, or says nothing.
sub run
{
	my ($self, $seconds, @statements) = @_;
	my $end = time + $seconds;
	my @results;

	local $SIG{PIPE} = 'IGNORE';
	for my $sql (@statements)
	{
		my $marker = sprintf '--- end of %d ---', ++$self->{number};
		my $text   = "$sql\n;\n\\echo '$marker'\n";

		utf8::encode($text);
		print { $self->{in} } $text or return;
		while ((my $at = index $self->{text}, "$marker\n") < 0)
		{
			my $left = $end - time;

			return unless $left > 0 && IO::Select->new($self->{out})->can_read($left);
			sysread $self->{out}, $self->{text}, 65536, length $self->{text} or return;
		}
		$self->{text} =~ s/\A(.*?)^\Q$marker\E\n//ms;
		push @results, result($1);
	}
	return @results;
}

sub result
{
	my ($text) = @_;
	my @errors;

	push @errors, [ $1, $2 ] while $text =~ /^(?:ERROR|FATAL|PANIC):  (\w{5}): (.*)$/mg;
	return { out => $text, errors => \@errors };
}

# What it had said that nobody has read.
sub rest { return $_[0]{text} }

sub stop
{
	my ($self) = @_;

	close $self->{in};
	kill 'TERM', $self->{psql};
	waitpid $self->{psql}, 0;
	return;
}

1;
