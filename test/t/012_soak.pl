# The short form of the soak: see test/soak. Its log has the seed; once more:
#
#   test/soak/run -n 300 -k 25 -s 12 SEED

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../soak";

use Soak;
use Test::More;

my @violations = Soak::run(requests => 300, keys => 25, seconds => 12, quiet => 1);

is(join("\n", @violations), '', 'Clerk holds what the committed rows ask for');
done_testing();
